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
from pipelines.evaluate.critics import BASELINES, Asking, Unread
from pipelines.evaluate.inputs import Labelled, read_sources, solution_path
from pipelines.settings import PanelSettings
from pipelines.templates import load_template
from pipelines.worker import Worker, WorkerSpec, holding
from schemas import Criticised, Critique, Failure, PathAlone, PathPair, Record, Template

SHARED = Path(os.environ.get("WRONGTURN_SHARED", Path(__file__).parents[1].parent / "shared")) / "data"
CONTEXT, SLOTS = 3072, 4
CHARS_A_TOKEN = 2.5
"""Characters that a token of a prompt has at least, by a safe guess."""
ROLES = ("stepwise", "skeptic", "defender")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_solutions(data: Path, name: str) -> list[Labelled]:
    """The solutions of one file of ProcessBench."""
    path = data / "processbench" / f"{name}.jsonl"
    (source,) = read_sources([str(path)], split="validation", limit=None, seed=0)
    return list(source.solutions)


def with_beginnings(solutions: Sequence[Labelled]) -> list[Labelled]:
    """The solutions, and of those that go wrong after a step or more the part before that."""
    return [*solutions, *(_beginning(item) for item in solutions if item.first_error)]


def _beginning(item: Labelled) -> Labelled:
    name, problem, steps = f"{item.id}, beginning", item.path.problem, item.path.steps[: item.first_error]
    path = solution_path(problem.source, name, problem.question, steps)
    return Labelled(id=name, path=path, label="correct", first_error=None, is_located=True, first_outcome="unscored")


def baselines(solutions: Sequence[Labelled]) -> dict[str, LocationScore]:
    """Critics that read nothing. The last one knows the most frequent label of the very file that it is scored on."""
    (majority, _), *_ = Counter(item.first_error for item in solutions).most_common(1)
    rules: dict[str, Callable[[PathPair | PathAlone], int | None]] = {
        "always none": BASELINES["always-none"],
        "always the first step": BASELINES["always-first"],
        "always the last step": BASELINES["always-last"],
        f"most frequent label ({'none' if majority is None else majority})": lambda _: majority,
    }
    return {
        name: score_locations(Located(label=item.first_error, named=rule(item.path)) for item in solutions)
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


def fitting(solutions: Sequence[Labelled], number: int) -> list[Labelled]:
    """The first solutions whose prompt, complaint and critique fit the model's context."""
    template, agents = _template(), _agents()
    room = (CONTEXT - 2 * agents[0].max_tokens) * CHARS_A_TOKEN
    fit = [item for item in solutions if len(_prompt(template, agents[0], item)) <= room]
    return fit[:number]


def _prompt(template: Template, agent: Agent, item: Labelled) -> str:
    return critique_prompt(template, agent, sections(item.path, "blind"))


def _template() -> Template:
    return load_template("critique", key="panel.agents", gaps=frozenset({"role", "critic", "sections"}))


def _agents() -> tuple[Agent, ...]:
    return tuple(Agent(name=role, role=role) for role in ROLES)


def criticise(solutions: Sequence[Labelled]) -> Criticism:
    """Asks the small model's critics about every solution, as WriteCritiques does, and weighs what they say."""
    start = time.monotonic()
    agents, template = _agents(), _template()
    with _worker() as worker:
        asking = Asking(
            spec=None,  # type: ignore[arg-type]  # only the graph needs it
            panel=PanelSettings(agents=agents),
            templates={agent.name: template for agent in agents},
            stop=("\n\n",),
            seed=0,
        )
        futures = [worker.submit(asking.ask_all(worker, item.path)) for item in solutions]
        results = [future.result() for future in futures]
    said = [each for result in results for each in result.values()]
    if failed := [each for each in said if isinstance(each, Failure)]:
        raise RuntimeError(f"{len(failed)} calls failed, expected none: {failed[0].detail}")
    criticised = [
        Criticised(path=item.path, critiques=tuple(each for each in result.values() if isinstance(each, Critique)))
        for item, result in zip(solutions, results, strict=True)
    ]
    agreed = flat_consensus(criticised)
    named = {
        agent.name: tuple(_located(item, result[agent.name]) for item, result in zip(solutions, results, strict=True))
        for agent in agents
    }
    return Criticism(
        named={**named, "consensus": tuple(_decided(item, agreed.get(item.path.id)) for item in solutions)},
        asked=len(agents) * len(solutions),
        unreadable=dict(Counter(each.reason for each in said if isinstance(each, Unread)).most_common()),
        reasked=sum(isinstance(each, Critique) and each.parse_state == "reasked" for each in said),
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


def _located(item: Labelled, said: Critique | Unread | Failure) -> Located:
    named = said.first_wrong_step if isinstance(said, Critique) else None
    return Located(label=item.first_error, named=named, scored=isinstance(said, Critique))


def _decided(item: Labelled, place: str | None) -> Located:
    step = int(place) if place is not None and place.isdecimal() else None
    return Located(label=item.first_error, named=step, scored=place is not None)


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
