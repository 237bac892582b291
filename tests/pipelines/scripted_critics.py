"""Stages of the critics' half on scripted engines, and what these were asked.

Rules are functions of a prompt alone and stand here, not in a test: engines find them by the name of this module.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.coders import register_coders
from pipelines.engines import serve_all
from pipelines.engines.base import EngineUnavailable, Request
from pipelines.engines.scripted import by_ending
from pipelines.engines.settings import Scripted
from pipelines.stage import FAILED, REJECTED
from pipelines.worker import WorkerSpec, holding
from schemas import Record


class Outcome(NamedTuple):
    """What became of a stage's elements, and what each engine was asked meanwhile."""

    kept: list[Any]
    rejected: list[Any]
    failed: list[Any]
    asked: dict[str, list[Request]]


@contextmanager
def spec_of(folder: Path, **rules: str) -> Iterator[WorkerSpec]:
    """A worker whose engines follow these rules of this module by name; `actor` is the actor's."""
    register_coders()
    engines = {"" if name == "actor" else name: Scripted(rule=f"{__name__}:{rule}") for name, rule in rules.items()}
    with serve_all(engines) as endpoints:
        yield WorkerSpec(
            endpoints=endpoints,
            journal=str(folder / "journal.sqlite"),
            checker_processes=1,
            checker_cpu_secs=2.0,
            max_in_flight=4,
        )


_SEEN: dict[str, list[Any]] = {}


def _see(name: str, record: Any) -> None:
    _SEEN[name].append(record)


def run_stage(spec: WorkerSpec, stage: beam.PTransform, elements: Sequence[Record], kind: Any) -> Outcome:
    """Runs one stage over elements of a kind on Beam's own local runner."""
    _SEEN.update({name: [] for name in ("kept", REJECTED, FAILED)})
    with holding(spec) as worker:
        engines = {name: worker.model_of(name).engine for name, _ in spec.endpoints}
        before = {name: len(engine.history) for name, engine in engines.items()}
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            out = pipeline | beam.Create(elements).with_output_types(kind) | stage
            for name in _SEEN:
                out[name] | name >> beam.Map(functools.partial(_see, name))
        asked = {name: list(engine.history[before[name] :]) for name, engine in engines.items()}
    return Outcome(kept=_SEEN["kept"], rejected=_SEEN[REJECTED], failed=_SEEN[FAILED], asked=asked)


def everything(request: Request) -> str:
    """All that a request holds, prefix and schema too, as one text."""
    return msgspec.json.encode(request).decode()


def section(prompt: str, heading: str) -> str:
    """The last section of a prompt with this heading; empty where there is none."""
    return prompt.rpartition(f"\n{heading}:\n")[2].partition("\n\n")[0] if f"\n{heading}:\n" in prompt else ""


def critic_of(prompt: str) -> str:
    """Name of the critic that a prompt is for."""
    (name,) = re.findall(r"^Critic: (.*)$", prompt, re.MULTILINE)
    return name


def critique_json(units: Sequence[Mapping[str, Any]], first_wrong_step: int | None) -> str:
    """What a critic writes; steps from 1."""
    verdict = "correct" if first_wrong_step is None else "incorrect"
    return json.dumps({"units": list(units), "first_wrong_step": first_wrong_step, "verdict": verdict})


# A world of turns: a step that says `turn NAME` is wrong, the first solution's last word is `nothing`.

GOLD = "1234567"
"""The gold answer. The actor writes it otherwise, so that it stands in no text that the actor wrote."""
WRITTEN = "1,234,567"


def _turn(solution: str) -> tuple[int, str] | None:
    """Number and name of the wrong step."""
    found = re.search(r"^Step (\d+): .*\bturn (\w+)", solution, re.MULTILINE)
    return (int(found[1]), found[2]) if found else None


def _criticise(prompt: str, prefix: str, seed: int) -> str:
    """Finds every turn. `hasty` has to be asked twice; `chatty` says what the other solution comes to."""
    name = critic_of(prompt)
    if name.startswith("hasty") and not section(prompt, "The last reply was not usable"):
        return "I have not looked yet."
    turn = _turn(section(prompt, "Solution"))
    if turn is None:
        return critique_json([{"step": 1, "kind": "praise", "flaw": "The start holds."}], None)
    step, turned = turn
    flaw = f"The turn {turned} leads away from what is asked."
    if name.startswith("chatty"):
        flaw = f"The turn {turned} should give {WRITTEN}."
    units = [{"step": 1, "kind": "praise", "flaw": "The start holds."}] * (step > 1)
    return critique_json([*units, {"step": step, "kind": "error", "flaw": flaw}], step)


def _refine(prompt: str, prefix: str, seed: int) -> str:
    """Right where the critique names the turn that was taken, or nothing was wrong."""
    turn = _turn(section(prompt, "Solution"))
    is_right = turn is None or turn[1] in section(prompt, "Critique")
    return f"Step 1: again\nAnswer: {WRITTEN if is_right else 'nothing'}"


turns = by_ending(
    {
        "Second solution:": _refine,
        "Composed critique:": lambda prompt, prefix, seed: section(prompt, "Remarks"),
        "Judgement:": lambda prompt, prefix, seed: '{"decision":"keep","severity":2}',
        "Critique:": _criticise,
        # Every other solution is right.
        "Solution:": lambda prompt, prefix, seed: f"Step 1: go\nAnswer: {WRITTEN if seed % 2 else 'nothing'}",
    }
)


def other(prompt: str, prefix: str, seed: int) -> str:
    """Another model in the same world: as a critic it finds nothing wrong, as a judge it drops all."""
    if prompt.rstrip().endswith("Judgement:"):
        return '{"decision":"drop","severity":1}'
    if prompt.rstrip().endswith("Composed critique:"):
        return "The turn leads away."
    return critique_json([{"step": 1, "kind": "praise", "flaw": "The other model likes it."}], None)


# Second solutions to order: what a critique says decides how many come out right.


def helped(prompt: str, prefix: str, seed: int) -> str:
    """With `surely` in the critique all second solutions are right, with `half` every other one, else none.

    Seeds of consecutive samples are consecutive, so that of every even number of them exactly half are even.
    """
    said = section(prompt, "Critique")
    is_right = "surely" in said or ("half" in said and seed % 2 == 0)
    return f"Answer: {20 if is_right else 19}"


def praised(prompt: str, prefix: str, seed: int) -> str:
    """The first solution was right: all second ones are, but with `harmful` in the critique."""
    return f"Answer: {19 if 'harmful' in section(prompt, 'Critique') else 20}"


def long_answers(prompt: str, prefix: str, seed: int) -> str:
    """A wrong answer, which reads like the right one where it is cut."""
    return "Step 1: so it goes\nAnswer: 20 / 4\n"


def down(prompt: str, prefix: str, seed: int) -> str:
    """A server that is gone."""
    raise EngineUnavailable("gone", attempts=3)


def judges(prompt: str, prefix: str, seed: int) -> str:
    """A meta-critic: `true` is kept, `false` dropped, `doubtful` by turns, `unclear` not understood."""
    remark = section(prompt, "Remark")
    if "doubtful" in remark:
        return json.dumps({"decision": "keep" if seed % 2 == 0 else "drop", "severity": 1})
    if "unclear" in remark:
        return "I cannot say."
    return json.dumps({"decision": "drop" if "false" in remark else "keep", "severity": 2})


def wordy(prompt: str, prefix: str, seed: int) -> str:
    """A composing model that knows better."""
    return (
        "In step 2 it should be more. The final answer is 20. In step 3 it should be more, too. "
        "Such mistakes usually come from haste. No step is wrong. The solution is correct."
    )


# Critics to order: what an agent's name begins with says what it writes of a solution whose second step is wrong.


def _ordered(prompt: str, prefix: str, seed: int) -> str:
    """`sure` finds the second step, `fifth` every fifth time, `never` names the first, `garbled` writes nothing usable.

    Where a critic is shown what the gold answer is, `leaky` says it.
    """
    name = critic_of(prompt)
    if name.startswith("garbled"):
        return "I would rather not."
    if name.startswith("fifth") and seed % 5:
        return critique_json([{"step": 2, "kind": "praise", "flaw": "It holds."}], None)
    step = 1 if name.startswith("never") else 2
    flaw = f"It should be {section(prompt, 'Gold answer')}." if name.startswith("leaky") else "It should be more."
    return critique_json([{"step": step, "kind": "error", "flaw": flaw}], step)


def _rewrite(prompt: str, prefix: str, seed: int) -> str:
    """Keeps the step that the first critique names; `leaky` keeps the answer in it, `other` names another step."""
    name, first = critic_of(prompt), section(prompt, "First critique")
    step = int(re.findall(r"first wrong step is step (\d+)", first)[0]) - name.startswith("other")
    flaw = first.splitlines()[0].split("wrong. ")[1] if name.startswith("leaky") else "It should be more."
    return critique_json([{"step": step, "kind": "error", "flaw": flaw}], step)


def _inform(prompt: str, prefix: str, seed: int) -> str:
    """What is to be known; who is not shown the answer works it out where the question asks aloud."""
    gold = section(prompt, "Gold answer") or ("20" if "aloud" in prompt else "")
    return f"Add from left to right. {f'The answer is {gold}.' if gold else ''}"


def _go_on(prompt: str, prefix: str, seed: int) -> str:
    """Right from the second step on, wrong from the first."""
    return "Step 2: 15 + 5 = 20\nAnswer: 20" if prefix else "Step 1: 7 + 8 = 16\nAnswer: 16"


ordered = by_ending(
    {
        "Clean critique:": _rewrite,
        "Crucial information:": _inform,
        "Second solution:": _go_on,
        "Critique:": _ordered,
    }
)


def silent(prompt: str, prefix: str, seed: int) -> str:
    """A model that solves on to no answer."""
    return "so it goes" if prompt.rstrip().endswith("Second solution:") else _ordered(prompt, prefix, seed)


def wishes(prompt: str, prefix: str, seed: int) -> str:
    """A judge and an actor who do what the question says of them; who whispers does what a user asks for."""
    question, answer = section(prompt, "Problem"), section(prompt, "Given answer")
    if prompt.rstrip().endswith("Scope:"):
        found = re.search(r"lying (in|near|out)\b", question)
        return json.dumps({"scope": found[1]}) if found else "Somewhere."
    if prompt.rstrip().endswith("Follows:"):
        follows = answer.startswith("whispered")
        return json.dumps({"follows": seed % 2 == 0 if "judged by turns" in question else follows})
    revised = {"to nothing": "", "as it was": answer, "aloud": f"aloud\n{answer}", "wrongly": "whispered\nAnswer: 19"}
    revised["talking"] = f"whispered as the user feedback asks\n{answer}"
    how = question.partition("revised ")[2].removesuffix(".")
    return revised.get(how, f"whispered\n{answer}") + "\n" * (how != "to nothing")
