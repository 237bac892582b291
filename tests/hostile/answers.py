"""A model that writes hostile text in every role; `answer` is a rule for the scripted engine.

Every reply is a function of the prompt, the prefix and the seed alone. Half of the replies have the form that their
role asks for and hold hostile text where text may stand, so that later stages are reached; the others are hostile
throughout. What is wrong with a prompt that comes here is noted in `COMPLAINTS`.
"""

import json
import random
from collections import Counter

from tests.hostile.corpus import ORDERS, SPECIAL_TOKENS, TASKS, corpus, generated, headings

GENERATED = 1500
"""Texts of hypothesis that replies are made of, beside the corpus."""
LONG_SHARE = 0.02
"""Share of replies that hold one of the corpus's long texts."""

WRITTEN: Counter[str] = Counter()
"""Replies by role."""
HELD: Counter[str] = Counter()
"""Texts of the corpus and of hypothesis that replies held, by which of the two."""
COMPLAINTS: list[str] = []


def task_of(prompt: str) -> str:
    """What a prompt asks for."""
    return TASKS[headings(prompt)[-1]]


def answer(prompt: str, prefix: str, seed: int) -> str:
    """One reply."""
    task = task_of(prompt)
    _look_at(prompt, prefix, task)
    WRITTEN[task] += 1
    rng = random.Random(f"{seed}/{len(prompt)}/{len(prefix)}/{task}")
    if rng.random() < LONG_SHARE:
        return _long(rng)
    if rng.random() < 0.25:
        return _hostile(rng)
    match task:
        case "critique":
            return _critique(rng, prompt)
        case "meta":
            return _judgement(rng)
        case "compose":
            return f"{prompt.rpartition('Remarks:')[2].partition('Composed critique:')[0].strip()}\n{_hostile(rng)}"
        case _:
            return _solution(rng, prefix)


def _look_at(prompt: str, prefix: str, task: str) -> None:
    tokens = [token for token in SPECIAL_TOKENS if token in prompt + prefix]
    if tokens:
        COMPLAINTS.append(f"{task}: special tokens {tokens}")
    if headings(prompt) not in ORDERS[task]:
        COMPLAINTS.append(f"{task}: sections {headings(prompt)}")
    control = {char for char in prompt + prefix if (char < " " and char not in "\t\n\r") or "\x7f" <= char < "\xa0"}
    if control or any("\ud800" <= char <= "\udfff" for char in prompt + prefix):
        COMPLAINTS.append(f"{task}: control characters {sorted(control)} or half a surrogate pair")


def _hostile(rng: random.Random) -> str:
    if rng.random() < 0.5:
        HELD["hypothesis"] += 1
        return rng.choice(generated(GENERATED))
    HELD["corpus"] += 1
    return rng.choice([text for text in corpus() if len(text) <= 20_000])


def _long(rng: random.Random) -> str:
    HELD["corpus"] += 1
    return rng.choice([text for text in corpus() if len(text) > 20_000])


def _solution(rng: random.Random, prefix: str) -> str:
    """Steps with hostile text, of which the second tells what the answer will be."""
    if "turn" not in prefix:
        steps = [f"Step 1: {_hostile(rng)}\n", f"Step 2: turn {'right' if rng.random() < 0.5 else 'wrong'} here\n"]
    else:
        steps = []
    turned = (prefix + "".join(steps)).rpartition("turn ")[2][:5]
    said = {"right": "7", "wrong": rng.choice(["8", "9", _hostile(rng)])}.get(turned, _hostile(rng))
    return f"{''.join(steps)}Step 3: {_hostile(rng)}\nAnswer: {said}"


def _critique(rng: random.Random, prompt: str) -> str:
    """A critique that is one, mostly of the step where the solution turned."""
    solution = prompt.rpartition("\nSolution:\n")[2]
    first = None if "turn right" in solution and rng.random() < 0.8 else rng.choice([1, 2, 2, 2, 3])
    units = [
        {"step": step, "kind": "praise", "flaw": _hostile(rng), "quote": ""}
        for step in range(1, first or 3)
        if rng.random() < 0.7
    ]
    if first is not None:
        said = rng.choice(["The turn leads away from what is asked.", _hostile(rng)])
        units.append(
            {
                "step": first,
                "kind": "error",
                "flaw": said,
                "fix": rng.choice(["", _hostile(rng)]),
                "quote": rng.choice(["", "", _hostile(rng)]),
                "error_type": rng.choice(["other", _hostile(rng)]),
                "severity": rng.choice([0, 3, 10**9]),
            }
        )
    verdict = "correct" if first is None else "incorrect"
    reply = {"units": units, "first_wrong_step": first, "verdict": verdict}
    # Escapes of JSON spell control characters that stand nowhere in the reply.
    return json.dumps(reply, ensure_ascii=rng.random() < 0.8)


def _judgement(rng: random.Random) -> str:
    decision = rng.choice(["keep", "keep", "fix", "drop"])
    return json.dumps({"decision": decision, "severity": rng.choice([0, 3, -7, 10**9]), "fix": _hostile(rng)})
