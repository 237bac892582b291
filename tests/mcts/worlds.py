"""Policies and verifiers for searches: closures over a world whose truth is known, which note what they are asked."""

import asyncio
import random
import re

from mcts.answers import Check, unscored
from mcts.base import Rollout

STEPS = 6
"""Steps of a solution before its answer line."""


class Notes:
    """What a policy was asked, in the order of the asking."""

    def __init__(self):
        self.calls = []
        """(prefix, first sample, rollouts) of each request; no rollouts yet where it is still in flight."""
        self.checked = []
        """Solutions that the verifier was given."""
        self.came = []
        """Prefixes that were answered and solutions that were decided, in the order of the answers."""

    @property
    def prefixes(self):
        return [prefix for prefix, _, _ in self.calls]

    @property
    def rollouts(self):
        return [rollout for _, _, rollouts in self.calls for rollout in rollouts]


def solution(prefix, rng, *, slip, luck):
    """The rest of a solution. A step slips with chance `slip`; then the answer is right with chance `luck` only."""
    steps = [f"Step {i}: good{rng.randrange(2)}\n" for i in range(prefix.count("Step ") + 1, STEPS + 1)]
    for i in range(len(steps)):
        if rng.random() < slip:
            steps[i] = steps[i].replace("good", "bad")
    broken = "bad" in prefix or any("bad" in step for step in steps)
    right = rng.random() < luck if broken else True
    return "".join(steps) + ("Answer: 8\n" if right else f"Answer: {rng.randrange(8)}\n")


def make_policy(seed, *, slip=0.15, luck=0.0, refused=0.0, delays=None):
    """(policy, notes). Sample k of a prefix depends on (seed, prefix, k) alone.

    `refused` is the share of samples that come back as errors; `delays` makes each request yield to the others for a
    random number of turns.
    """
    notes = Notes()

    def sample(prefix, index):
        rng = random.Random(f"{seed}/{index}/{prefix}")
        if rng.random() < refused:
            return Rollout(text="", tokens=rng.randrange(3), error="refused")
        text = solution(prefix, rng, slip=slip, luck=luck)
        return Rollout(text=text, tokens=len(text.split()))

    async def policy(prefix, *, num_samples, first_sample):
        came = []
        notes.calls.append((prefix, first_sample, came))
        for _ in range(delays.randrange(12) if delays else 0):
            await asyncio.sleep(0)
        came.extend(sample(prefix, first_sample + i) for i in range(num_samples))
        notes.came.append(prefix)
        return tuple(came)

    return policy, notes


def make_verifier(notes=None, delays=None):
    """Right is `Answer: 8`; another number is wrong; a solution without an answer line is unscored."""

    async def verifier(text):
        if notes:
            notes.checked.append(text)
        for _ in range(delays.randrange(12) if delays else 0):
            await asyncio.sleep(0)
        if notes:
            notes.came.append(text)
        found = re.search(r"^Answer: (\d+)\n\Z", text, re.MULTILINE)
        if not found:
            return unscored("no_answer")
        return Check(outcome="correct" if found[1] == "8" else "incorrect", answer=found[1])

    return verifier
