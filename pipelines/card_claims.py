"""What the dataset card claims of how its data was made, as the settings of the run have it."""

from collections.abc import Iterator
from typing import NamedTuple

from annotators.helping import EXACT_TESTS, HELP_TESTS, controls, help_tests
from annotators.rounds import Rounds
from mcts.given import GivenSettings
from mcts.injected import InjectSettings
from mcts.samples import SampleSettings
from pipelines.card_data import in_code
from pipelines.card_paths import PathsSaid, paths_said
from pipelines.settings import Settings
from schemas import Giver

_GIVERS: dict[Giver, str] = {
    "critic": "a critic who is shown the attempt",
    "teacher": "a teacher who is shown the attempt",
    "verdict": "the checker, which says right or wrong",
    "execution": "a run of the tests, or of the checker",
    "aspects": "a critic who goes by aspects",
}
"""Who gives feedback in dialogues, by `loop.giver`."""

_HELP_AGAINST = {
    "no_better_than_none": "with none",
    "rate_not_higher": "with none",
    "no_better_than_placebo": "with a placebo",
}
"""By test, what second solutions with a critique of a wrong path must be more often right than."""


class Claims(NamedTuple):
    """Sentences of the card."""

    summary: str
    """What was done."""
    labels: str
    """Whose word labels are."""
    how: tuple[str, ...]
    """By what settings, one point each."""
    limits: tuple[str, ...]
    """What the data must not be taken for, one point each."""


def claims(settings: Settings, num_problems: int) -> Claims:
    """What the card of a run over so many problems claims."""
    paths = paths_said(settings)
    return Claims(
        summary=" ".join((_begun(settings, num_problems), *_summary(settings))),
        labels=_labels(settings, paths),
        how=tuple(_how(settings, paths)),
        limits=tuple(_limits(settings, paths)),
    )


def _begun(settings: Settings, num_problems: int) -> str:
    problems, actor = f"{num_problems} problems", f"the model {in_code(settings.engine.label)}"
    match settings.paths:
        case GivenSettings() as given:
            added = f" and had {actor} go on from steps of them" if given.ask_actor else ""
            return f"wrongturn took solutions of {problems} from files{added}."
        case InjectSettings():
            return f"wrongturn sampled solutions of {problems} from {actor} and put errors into right ones."
        case SampleSettings():
            return f"wrongturn sampled solutions of {problems} from {actor}."
        case _:
            return f"wrongturn grew trees of reasoning for {problems} with {actor}."


def _summary(settings: Settings) -> Iterator[str]:
    pairing, loop = settings.pairing, settings.loop
    wrong, right = "wrong paths that part from a right one", "right paths without a partner"
    shown = [said for said, count in ((wrong, pairing.max_pairs), (right, pairing.max_alone)) if count]
    if shown:
        yield f"Critics criticised {' and '.join(shown)}."
        yield from _kept(settings)
    else:
        yield "No path was picked for critics (`pairing`), so that no critique was verified."
    if isinstance(loop, Rounds):
        yield f"Dialogues went on from solutions with feedback by {_giver(loop)}, and with other attempts."
    if settings.scope.feedback:
        yield "Answers were revised by a user's feedback."


def _kept(settings: Settings) -> Iterator[str]:
    """What a critique had to show."""
    verify, pairing = settings.verify, settings.pairing
    if not verify.tests:
        yield "No test decided which critiques were kept (`verify.tests` is empty): what they say may be wrong."
        return
    yield "A critique was kept only if it passed the tests named below."
    counts = {"wrong": pairing.max_pairs, "right": pairing.max_alone}
    musts = {label: _must(settings, has_error=label == "wrong") for label, count in counts.items() if count}
    said = "; ".join(
        f"with one of a {label} path second solutions came out right {must}" for label, must in musts.items() if must
    )
    yield f"{said[0].upper()}{said[1:]}." if said else "None of them asks whether it helps."
    if settings.export.feedback == "both_marked":
        yield "In `sft` are critiques that were rejected, too, marked as such."


def _must(settings: Settings, *, has_error: bool) -> str:
    """How often second solutions had to come out right with a critique; empty where that decides nothing."""
    tests = help_tests(settings.verify.tests, has_error=has_error)
    said = []
    if has_error and (against := dict.fromkeys(text for name, text in _HELP_AGAINST.items() if name in tests)):
        said.append(f"more often than {' and than '.join(against)}")
    if not has_error and "rate_not_higher" in tests:
        said.append("no less often than with none")
    if "hurts" in tests:
        said.append("not significantly less often than with none")
    if "rate_too_low" in tests:
        said.append(f"in more than {settings.verify.help.min_rate:.0%} of all cases")
    return ", and ".join(said)


def _giver(loop: Rounds) -> str:
    words = " with a model's words beside it" if loop.verbal != ("none",) else ""
    return f"{_GIVERS[loop.giver]}{words}" + (" and knows the answer" if loop.sees != "nothing" else "")


def _labels(settings: Settings, paths: PathsSaid) -> str:
    if not settings.pairing.max_pairs and not settings.pairing.max_alone:
        whose = "**Outcomes are the checker's, rates are estimates.**"
    elif paths.known:
        whose = "**Labels are estimates where nobody knows them.**"
    else:
        whose = "**Labels are estimates.**"
    return (
        f"{whose} A step's value is estimated from rollouts that begin there, never from the search's visits; rows for "
        "trainers bear counts (`correct`, `scored`, `unscored`), those of the bare problem at least, and what nobody "
        "could decide is in no estimate."
    )


def _how(settings: Settings, paths: PathsSaid) -> Iterator[str]:
    search, pairing, loop = settings.search, settings.pairing, settings.loop
    yield (
        f"{paths.source} A tree has at most {search.max_rollouts} rollouts. Intervals are at level {search.level} in "
        f"trees, {pairing.level} in pairing and {settings.export.level} in `rl`."
    )
    if pairing.max_pairs:
        yield (
            f"{paths.known}{_located(settings, 'Any other' if paths.known else 'A')}; a pair needs "
            f"{pairing.min_confidence}, and a gap between both sides that is significant at {pairing.alpha} "
            "(one-sided)."
        )
    if pairing.max_pairs or pairing.max_alone:
        names = ", ".join(map(in_code, settings.verify.tests))
        decides = f"A kept critique failed none of {names}" if names else "No test decides about a critique"
        yield f"{decides}. What else its text fails stands in `verified`, column `ignored`."
        yield _measured(settings)
    if isinstance(loop, Rounds):
        told = "words that give the answer away masked" if loop.mask else "and an end where it gives the answer away"
        yield f"After its first attempt a dialogue has at most {loop.max_rounds} more, each after feedback, {told}."


def _located(settings: Settings, which: str) -> str:
    """How the first error of a wrong path is told, if it is not known."""
    search, paths = settings.search, settings.paths
    by = f"{which} wrong path's first error is located by a change-point posterior"
    if isinstance(paths, GivenSettings) and not paths.ask_actor:
        return f"{which} wrong path has no rollout that could locate its first error"
    if not search.max_located:
        return f"{by} over rollouts that were made for something else"
    most = f"(of a tree's wrong paths {search.max_located} at most)"
    if isinstance(paths, GivenSettings | SampleSettings) and paths.locate == "completions":
        return f"{by} over {paths.completions_per_step} rollouts from each step but the last {most}"
    return (
        f"{by}, with at most {search.max_probe_rollouts} rollouts and until one step has probability "
        f"{search.locate_confidence} {most}"
    )


def _measured(settings: Settings) -> str:
    """Which second solutions were written, and what they decide."""
    verify, pairing = settings.verify, settings.pairing
    named = [name for name in verify.tests if name in HELP_TESTS]
    counts = {"wrong": pairing.max_pairs, "right": pairing.max_alone}
    labels = [label for label, count in counts.items() if count and help_tests(named, has_error=label == "wrong")]
    if not verify.measure_all and not labels:
        return "No second solution was written with a critique: whether one helps is not known."
    if verify.measure_all:
        which = "every critique" if verify.measure_leaking else "every critique that does not give the answer away"
    else:
        of = "path" if len(labels) == 2 else f"{labels[0]} path"
        which = f"critiques of a {of} that pass the other tests, up to {verify.max_measured}"
        which += f", and of such as fail one, up to {verify.measure_rejected}" if verify.measure_rejected else ""
    few, many = verify.help.rollouts, verify.help.max_rollouts
    number = f"{few}" if few == many or not named else f"{few} to {many}"
    beside = [text for name, text in (("placebo", "with a placebo"), ("none", "with none")) if name in controls(named)]
    arms = (
        f"for each of {len(beside) + 1} arms ({', '.join(('with it', *beside))})" if beside else "written with it alone"
    )
    if any(name in EXACT_TESTS for name in named):
        decided = f"differences are tested at {verify.help.alpha} (exact, one-sided, over all looks)"
    elif named:
        decided = "rates are taken as they come, without a test of chance"
    else:
        decided = "what comes out decides nothing about what is kept"
    return f"Measured is the help of {which}: {number} second solutions {arms}; {decided}."


def _limits(settings: Settings, paths: PathsSaid) -> Iterator[str]:
    pairing, verify = settings.pairing, settings.verify
    has_paths, has_dialogues = bool(pairing.max_pairs or pairing.max_alone), isinstance(settings.loop, Rounds)
    if pairing.max_pairs and isinstance(settings.paths, GivenSettings) and not settings.paths.ask_actor:
        yield "First errors are those that labels in the files name; nobody looked again."
    elif pairing.max_pairs:
        yield (
            f"First errors {paths.unknown}come from rollouts of the actor, not from people: a step from which this "
            "actor never recovers counts as wrong, and an error that it always repairs does not."
        )
    other = " and its value holds along its steps, any other solution where its answer is right" if has_paths else ""
    yield (
        f"A {'path' if has_paths else 'solution'} counts as right where its answer is right{other}. A wrong step that "
        "does no harm can be in it."
    )
    if has_paths and any(name in HELP_TESTS for name in verify.tests):
        yield "Critiques are written by models. That a critique helps does not make every sentence of it true."
    elif has_paths:
        yield "Critiques are written by models, and were kept whether they help or not."
    if has_dialogues:
        yield "Feedback in dialogues was not verified: that a right attempt came after it may be chance."
    if has_dialogues or (has_paths and verify.writes_seconds):
        yield "What helps this actor need not help another one."
    if settings.scope.feedback:
        yield "Where feedback belongs, and whether it was followed, a model judged. What is preferred may be wrong."
    if pairing.max_pairs:
        yield "Problems without a right and a wrong path have no pairs: the rows are no random sample of the problems."
    else:
        yield "Not every problem need have a row: the rows are no random sample of the problems."
