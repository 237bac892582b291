"""The critics' half on real text: rules that weigh remarks against people, and critics that look for the first error.

    python -m benchmarks.panel_text [--quick] [--model]

Remarks: 50 answers of MetaCritique (arXiv 2401.04518), each criticised by a person and by two of eight models, 927
remarks in all, each called right or wrong by people. The rules see no label. Remarks of one answer that say the same
(`annotators.likeness`) are one remark; who says it votes yes on it. Votes are one-sided: with yes alone every remark
would be true and every critic perfect, so that silence of a critic who saw the answer is taken for a no. It is a weak
no, since nobody says all there is to say: full Dawid-Skene gives every critic a rate of keeping silent about what is
true apart from its rate of saying what is not; the one-coin model has one for both. What nobody said is no task, so
that votes do not tell which share of the remarks is true: the figures show what that costs. Reliability is the mean
probability of what a critic says by full Dawid-Skene, skill what the pipeline takes for reliability (one coin, shrunk).
All rules keep from 0.5: what is likelier right than not, and whoever is. That was fixed before the labels were looked
at, like the likeness from which two remarks are one and every rule but `backed, or critic skilled`, which was added
after the first figures, where one-coin probabilities gave all critics reliability 0. Skill from such votes is near to
brevity, each remark that nobody else makes counting against its critic: answers per remark stand beside it.

First errors: 200 + 200 solutions of ProcessBench (arXiv 2412.06559) and the metrics of its paper. All of these have a
wrong step, so that the half of the metric on correct solutions cannot be had from them. In its place stand the steps
before the first wrong one, which people found right: unfinished solutions without an error. They are counted apart
(`+ beginnings`) and are not ProcessBench's own correct solutions.

`--model` lets three roles of SmolLM2-135M criticise the first ten solutions of each file that fit its context, and
their beginnings, blind and as WriteCritiques asks, and weighs them as `annotators.consensus` does, every place being as
likely as every other beforehand. `--quick` takes four.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene, OneCoinDawidSkene
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from annotators import consensus
from annotators.likeness import ALIKE, count_backers, group_alike
from annotators.metrics import Agreement, LocationScore, compare_decisions, score_locations, strict_rate
from benchmarks.processbench import (
    SHARED,
    Criticism,
    baselines,
    criticise,
    fitting,
    read_jsonl,
    read_solutions,
    with_beginnings,
)
from schemas import Estimate, Record

NAMES = ("gsm8k", "math")
CRITICS = ("human", "llm1", "llm2")
KEEP = 0.5
"""Probability, and reliability, from which a remark is kept."""
_BOILERPLATE = re.compile(r"\bthe model-generated answer\b", re.IGNORECASE)
"""What nearly every remark of MetaCritique begins with: it would make any two alike."""


class Remark(Record):
    """A remark of one critic on one answer, and what people say of it."""

    answer: int
    critic: str
    """`human`, or the model's name."""
    slot: str
    """Under which of MetaCritique's three names it stands."""
    text: str
    right: bool


def read_remarks(data: Path) -> list[Remark]:
    """All remarks that people labelled, in the order of the file."""
    return [
        Remark(
            answer=i,
            critic=row[f"{slot}_critique"].get("model", "human"),
            slot=slot,
            text=_BOILERPLATE.sub("", text),
            right=right,
        )
        for i, row in enumerate(read_jsonl(data / "metacritique" / "annotation.jsonl"))
        for slot in CRITICS
        for text, right in zip(
            row[f"{slot}_critique"]["aius"], row[f"{slot}_critique"]["precision_labels"], strict=True
        )
    ]


def backed(remarks: Sequence[Remark], threshold: float = ALIKE) -> list[bool]:
    """Whether another critic of the same answer says the same."""
    found = [False] * len(remarks)
    for members in _by_answer(remarks):
        counts = count_backers([(remarks[i].critic, remarks[i].text) for i in members], threshold)
        for i, count in zip(members, counts, strict=True):
            found[i] = count > 1
    return found


def _by_answer(remarks: Sequence[Remark]) -> list[list[int]]:
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i, remark in enumerate(remarks):
        members[remark.answer].append(i)
    return list(members.values())


Votes = list[tuple[str, str, str]]
"""Task, critic and label, as crowd-kit has them."""


def votes_on(remarks: Sequence[Remark]) -> tuple[Votes, list[str]]:
    """The critics' votes on every distinct remark, silence being a no; and for each remark which one it is."""
    votes: Votes = []
    task_of = [""] * len(remarks)
    for members in _by_answer(remarks):
        critics = {remarks[i].critic for i in members}
        said: defaultdict[str, set[str]] = defaultdict(set)
        for i, group in zip(members, group_alike([remarks[i].text for i in members]), strict=True):
            task_of[i] = f"{remarks[i].answer}/{group}"
            said[task_of[i]].add(remarks[i].critic)
        for task, yes in said.items():
            votes += [(task, critic, "yes" if critic in yes else "no") for critic in sorted(critics)]
    return votes, task_of


def probabilities(votes: Votes, task_of: Sequence[str], *, one_coin: bool = False) -> list[float]:
    """For each remark how likely it is to be true. Sees no label."""
    model = (OneCoinDawidSkene if one_coin else DawidSkene)(n_iter=100)
    probability = model.fit_predict_proba(pd.DataFrame(votes, columns=["task", "worker", "label"]))["yes"]
    return [float(probability[task]) for task in task_of]


def mean_by(keys: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Mean of the values of each key."""
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        groups[key].append(value)
    return {key: sum(group) / len(group) for key, group in sorted(groups.items())}


def difference(remarks: Sequence[Remark], is_backed: Sequence[bool]) -> tuple[float, float, float]:
    """Share of right remarks among the backed less that among the others, with a 95 % interval over answers.

    The bootstrap draws answers, not remarks: remarks on one answer are not independent (Efron and Tibshirani 1993).
    """
    counts = np.zeros((len({remark.answer for remark in remarks}), 2, 2))
    for remark, has_backing in zip(remarks, is_backed, strict=True):
        counts[remark.answer, int(has_backing)] += (remark.right, 1)
    draws = np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))
    drawn = counts[draws].sum(axis=1)
    spread = drawn[:, 1, 0] / drawn[:, 1, 1] - drawn[:, 0, 0] / drawn[:, 0, 1]
    total = counts.sum(axis=0)
    low, high = np.quantile(spread, (0.025, 0.975))
    return float(total[1, 0] / total[1, 1] - total[0, 0] / total[0, 1]), float(low), float(high)


def weigh_remarks(console: Console) -> dict[str, Any]:
    """Rules that need no model against people; prints the tables, returns the figures."""
    remarks = read_remarks(SHARED)
    right, is_backed = [remark.right for remark in remarks], backed(remarks)
    critics, (votes, task_of) = [remark.critic for remark in remarks], votes_on(remarks)
    two, one = probabilities(votes, task_of), probabilities(votes, task_of, one_coin=True)
    trust, skills = mean_by(critics, two), consensus._skills(votes)
    rules = {
        "keep all": [True] * len(remarks),
        "backed": is_backed,
        "backed, or critic reliable": [b or trust[c] >= KEEP for b, c in zip(is_backed, critics, strict=True)],
        "backed, or critic skilled": [b or skills[c] >= KEEP for b, c in zip(is_backed, critics, strict=True)],
        "probability, Dawid-Skene": [p >= KEEP for p in two],
        "probability, one coin": [p >= KEEP for p in one],
    }
    agreements = {name: compare_decisions(kept, right) for name, kept in rules.items()}
    people = mean_by(critics, right)
    slots = mean_by([remark.slot for remark in remarks], right)
    gap, low, high = difference(remarks, is_backed)
    _print_backing(console, remarks)
    print(f"people call right {_share(right)} of the remarks; by critic {_listed(slots)}")
    print(f"backed ones more often than others by {gap:+.3f} (95 % interval {low:+.3f} .. {high:+.3f})")
    _print_rules(console, agreements)
    answers = Counter(critic for critic, _ in {(remark.critic, remark.answer) for remark in remarks})
    brevity = {critic: answers[critic] / count for critic, count in Counter(critics).items()}
    estimates = {"reliability": trust, "skill": skills, "brevity": brevity}
    _print_trust(console, Counter(critics), people, estimates)
    ranks = {name: _rank_agreement(people, estimate) for name, estimate in estimates.items()}
    return {
        "remarks": len(remarks),
        "right": sum(right) / len(right),
        "right_by_slot": slots,
        "backed": sum(is_backed) / len(is_backed),
        "right_backed": _mean([r for r, b in zip(right, is_backed, strict=True) if b]),
        "right_unbacked": _mean([r for r, b in zip(right, is_backed, strict=True) if not b]),
        "difference": [gap, low, high],
        "rules": {name: _plain(agreement) for name, agreement in agreements.items()},
        "right_by_critic": people,
        **estimates,
        "rank_correlation": ranks,
    }


def _rank_agreement(people: dict[str, float], estimated: dict[str, float]) -> float:
    return float(spearmanr([people[c] for c in people], [estimated[c] for c in people]).statistic)


def _print_backing(console: Console, remarks: Sequence[Remark]) -> None:
    table = Table("likeness", "backed", "right, backed", "right, unbacked")
    for threshold in (0.3, ALIKE, 0.7):
        found = backed(remarks, threshold)
        yes = [remark.right for remark, has_backing in zip(remarks, found, strict=True) if has_backing]
        no = [remark.right for remark, has_backing in zip(remarks, found, strict=True) if not has_backing]
        mark = " (ours)" if threshold == ALIKE else ""
        table.add_row(f"{threshold}{mark}", f"{sum(found)} of {len(found)}", _share(yes), _share(no))
    console.print(table)


def _print_rules(console: Console, agreements: dict[str, Agreement]) -> None:
    table = Table("rule", "kept", "accuracy", "precision", "recall", "kappa")
    for name, item in agreements.items():
        figures = (item.accuracy, item.precision, item.recall, item.kappa)
        table.add_row(name, f"{item.kept_right + item.kept_wrong} of {item.total}", *map(_number, figures))
    console.print(table)


def _print_trust(
    console: Console, counts: Counter[str], people: dict[str, float], estimates: dict[str, dict[str, float]]
) -> None:
    table = Table("critic", "remarks", "right, by people", *estimates)
    for critic in sorted(people, key=lambda name: -people[name]):
        found = (_number(estimate[critic]) for estimate in estimates.values())
        table.add_row(critic, str(counts[critic]), _number(people[critic]), *found)
    console.print(table)
    for name, estimate in estimates.items():
        print(
            f"rank correlation with people over {len(people)} critics, {name}: {_rank_agreement(people, estimate):+.2f}"
        )


def _share(flags: Sequence[bool]) -> str:
    return f"{sum(flags)} of {len(flags)} ({_number(_mean(flags))})"


def _mean(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(item: Agreement) -> dict[str, float | None]:
    return {"accuracy": item.accuracy, "precision": item.precision, "recall": item.recall, "kappa": item.kappa}


def _print_scores(console: Console, title: str, scores: dict[str, LocationScore]) -> dict[str, Any]:
    table = Table("critic", "erroneous", "correct", "F1", "F1, unread missed", "verdict", "distance", title=title)
    for name, item in scores.items():
        counts = (_counts(estimate) for estimate in (item.on_erroneous, item.on_correct))
        figures = (_number(item.f1), _number(item.strict_f1), _counts(item.verdict), _number(item.distance))
        table.add_row(name, *counts, *figures)
    console.print(table)
    return {name: _figures(item) for name, item in scores.items()}


def _counts(estimate: Estimate) -> str:
    if not estimate.scored + estimate.unscored:
        return "-"
    unread = f", {estimate.unscored} unread" if estimate.unscored else ""
    return f"{_number(estimate.rate)} of {estimate.scored}{unread}"


def _figures(item: LocationScore) -> dict[str, float | None]:
    return {
        "erroneous": item.on_erroneous.rate,
        "correct": item.on_correct.rate,
        "f1": item.f1,
        "strict_erroneous": strict_rate(item.on_erroneous),
        "strict_f1": item.strict_f1,
        "verdict": item.verdict.rate,
        "distance": item.distance,
    }


def find_errors(console: Console) -> dict[str, Any]:
    """Critics that read nothing; prints the tables, returns the figures."""
    figures = {}
    for name in NAMES:
        solutions = read_solutions(SHARED, name)
        both = with_beginnings(solutions)
        title = f"{name}: {len(solutions)} solutions"
        figures[name] = _print_scores(console, title, baselines(solutions))
        title = f"{name} + beginnings: {len(both)}"
        figures[f"{name} + beginnings"] = _print_scores(console, title, baselines(both))
    return figures


def ask_model(console: Console, number: int) -> dict[str, Any]:
    """The small model's critics on the first solutions of each file; prints the tables, returns the figures."""
    figures: dict[str, Any] = {}
    for name in NAMES:
        solutions = with_beginnings(fitting(read_solutions(SHARED, name), number))
        found = criticise(solutions)
        scores = baselines(solutions) | {who: score_locations(items) for who, items in found.named.items()}
        title = f"{name} + beginnings, SmolLM2-135M: {len(solutions)}"
        figures[name] = {"scores": _print_scores(console, title, scores)} | _print_unreadable(found)
    return figures


def _print_unreadable(found: Criticism) -> dict[str, Any]:
    unread = sum(found.unreadable.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in found.unreadable.items()) or "none"
    print(
        f"no critique: {unread} of {found.asked} ({unread / found.asked:.3f}) after one re-ask: {reasons}; "
        f"a critique only when asked again: {found.reasked}; {found.seconds:.0f} s"
    )
    return {
        "unreadable": unread / found.asked,
        "reasons": {reason: count / found.asked for reason, count in found.unreadable.items()},
        "reasked": found.reasked / found.asked,
        "seconds": found.seconds,
    }


def main() -> None:
    """Prints the tables and the line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four solutions of each file for the model, not ten")
    parser.add_argument("--model", action="store_true", help="let the small model criticise, too")
    options = parser.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: needs the shared data at {SHARED}; set WRONGTURN_SHARED to the folder that holds data/")
        return
    console = Console(width=120)
    figures = {"remarks": weigh_remarks(console), "first_errors": find_errors(console)}
    if options.model:
        figures["model"] = ask_model(console, 4 if options.quick else 10)
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
