"""ProcessBench for `benchmarks.panel_text`: solutions, critics that read nothing, and a small model's critics."""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annotators import consensus
from annotators.critic import Agent, critique_prompt, sections
from annotators.metrics import Located, LocationScore, score_locations
from pipelines.engines import serve
from pipelines.engines.settings import LlamaCpp
from pipelines.settings import PanelSettings
from pipelines.templates import load_template
from pipelines.worker import Worker, WorkerSpec, holding
from pipelines.write_critiques import WriteCritiques
from schemas import (
    Branch,
    Criticised,
    Critique,
    Estimate,
    Failure,
    PathAlone,
    Problem,
    Provenance,
    Record,
    Rejection,
    Template,
)

SHARED = Path(os.environ.get("WRONGTURN_SHARED", Path(__file__).parents[1].parent / "shared")) / "data"
CONTEXT, SLOTS = 3072, 4
CHARS_A_TOKEN = 2.5
"""Characters that a token of a prompt has at least, by a safe guess."""
ROLES = ("stepwise", "skeptic", "defender")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Solution(Record):
    """A solution of which people say where it goes wrong."""

    name: str
    problem: str
    steps: tuple[str, ...]
    label: int | None


def read_solutions(data: Path, name: str) -> list[Solution]:
    """The solutions of one file of ProcessBench; its -1 is None here."""
    return [
        Solution(
            name=row["id"],
            problem=row["problem"],
            steps=tuple(row["steps"]),
            label=None if row["label"] == -1 else row["label"],
        )
        for row in read_jsonl(data / "processbench" / f"{name}.jsonl")
    ]


def with_beginnings(solutions: Sequence[Solution]) -> list[Solution]:
    """The solutions, and of those that go wrong after a step or more the part before that."""
    beginnings = [
        Solution(name=f"{item.name}, beginning", problem=item.problem, steps=item.steps[: item.label], label=None)
        for item in solutions
        if item.label
    ]
    return [*solutions, *beginnings]


def baselines(solutions: Sequence[Solution]) -> dict[str, LocationScore]:
    """Critics that read nothing. The last one knows the most frequent label of the very file that it is scored on."""
    (majority, _), *_ = Counter(item.label for item in solutions).most_common(1)
    rules: dict[str, Callable[[Solution], int | None]] = {
        "always none": lambda _: None,
        "always the first step": lambda _: 0,
        "always the last step": lambda item: len(item.steps) - 1,
        f"most frequent label ({'none' if majority is None else majority})": lambda _: majority,
    }
    return {
        name: score_locations(Located(label=item.label, named=rule(item)) for item in solutions)
        for name, rule in rules.items()
    }


class Criticism(Record):
    """What the model's critics made of some solutions."""

    named: dict[str, tuple[Located, ...]]
    """By critic, and for `consensus`, one entry a solution."""
    asked: int
    """Critiques asked for."""
    unreadable: dict[str, int]
    """Those of them that were no critique after one re-ask, by reason."""
    reasked: int
    """Those that were one only then."""
    seconds: float


def fitting(solutions: Sequence[Solution], number: int) -> list[Solution]:
    """The first solutions whose prompt, complaint and critique fit the model's context."""
    template, agents = _template(), _agents()
    room = (CONTEXT - 2 * agents[0].max_tokens) * CHARS_A_TOKEN
    fit = [item for item in solutions if len(_prompt(template, agents[0], item)) <= room]
    return fit[:number]


def _prompt(template: Template, agent: Agent, item: Solution) -> str:
    return critique_prompt(template, agent, sections(_path(item), "blind"))


def _template() -> Template:
    return load_template("critique", key="panel.agents", gaps=frozenset({"role", "critic", "sections"}))


def _agents() -> tuple[Agent, ...]:
    return tuple(Agent(name=role, role=role) for role in ROLES)


def _path(item: Solution) -> PathAlone:
    """A solution as a blind critic is shown it; what else a path holds is not in its prompt."""
    nobody = Provenance(model="", revision="", engine="", prompt_digest="", sampling="", seed=0)
    return PathAlone(
        id=item.name,
        problem=Problem(id=item.name, source="processbench", domain="math", question=item.problem, answer=""),
        tree_id="",
        provenance=nobody,
        path=Branch(
            steps=item.steps,
            nodes=tuple(range(len(item.steps))),
            estimates=(Estimate(),) * len(item.steps),
            answer=None,
        ),
        root_estimate=Estimate(),
    )


def criticise(solutions: Sequence[Solution]) -> Criticism:
    """Asks the small model's critics about every solution, as WriteCritiques does, and weighs what they say."""
    start = time.monotonic()
    agents, template = _agents(), _template()
    stage: Any
    with _worker() as worker:
        stage = WriteCritiques(
            spec=None,  # type: ignore[arg-type]  # only the graph needs it
            panel=PanelSettings(agents=agents),
            templates={agent.name: template for agent in agents},
            stop=("\n\n",),
            seed=0,
        )
        futures = [worker.submit(stage._criticise(worker, _path(item))) for item in solutions]
        results = [list(future.result()) for future in futures]
    if failed := [part for result in results for part in result if isinstance(part, Failure)]:
        raise RuntimeError(f"{len(failed)} calls failed, expected none: {failed[0].detail}")
    criticised = [part for result in results for part in result if isinstance(part, Criticised)]
    rejected = [part for result in results for part in result if isinstance(part, Rejection)]
    states = [critique.parse_state for item in criticised for critique in item.critiques]
    agreed = flat_consensus(criticised)
    named = {
        agent.name: tuple(
            _located(item, next((c for c in found.critiques if c.agent == agent.name), None))
            for item, found in zip(solutions, criticised, strict=True)
        )
        for agent in agents
    }
    return Criticism(
        named={**named, "consensus": tuple(_decided(item, agreed.get(item.name)) for item in solutions)},
        asked=len(agents) * len(solutions),
        unreadable=dict(Counter(item.reason for item in rejected).most_common()),
        reasked=states.count("reasked"),
        seconds=time.monotonic() - start,
    )


@contextmanager
def _worker() -> Iterator[Worker]:
    with tempfile.TemporaryDirectory() as folder, serve(LlamaCpp(context_tokens=CONTEXT, slots=SLOTS)) as endpoint:
        spec = WorkerSpec(
            endpoints=(("", endpoint),),
            journal=str(Path(folder) / "journal.sqlite"),
            checker_processes=1,
            checker_cpu_secs=1.0,
            max_in_flight=SLOTS,
        )
        with holding(spec) as worker:
            yield worker


def _located(item: Solution, critique: Critique | None) -> Located:
    return Located(label=item.label, named=critique.first_wrong_step if critique else None, scored=critique is not None)


def _decided(item: Solution, place: str | None) -> Located:
    step = int(place) if place is not None and place.isdecimal() else None
    return Located(label=item.label, named=step, scored=place is not None)


def flat_consensus(criticised: Sequence[Criticised]) -> dict[str, str]:
    """By path id where the critics together place the first error: the number of a step, or `none`.

    `annotators.consensus` without what rollouts know: no vote of theirs on the critics' skills, and every place as
    likely as every other before a critic speaks. Paths without a critique, and ties, are left out.
    """
    votes = [
        (item.path.id, critique.agent, consensus._label(critique.first_wrong_step))
        for item in criticised
        for critique in item.critiques
    ]
    skills = consensus._skills(votes) if votes else {}
    agreed = {}
    for item in (item for item in criticised if item.critiques):
        places = [*map(str, range(len(item.path.steps))), consensus._NONE]
        weights = dict.fromkeys(places, 1.0)
        for critique in item.critiques:
            skill, named = skills[critique.agent], consensus._label(critique.first_wrong_step)
            for place in places:
                weights[place] *= skill if place == named else (1 - skill) / (len(places) - 1)
        best, second = sorted(places, key=lambda place: -weights[place])[:2]
        if weights[best] >= consensus._TIE_RATIO * weights[second]:
            agreed[item.path.id] = best
    return agreed
