"""What every record shares: immutability, content digests and nothing else."""

import hashlib
from typing import Any, Literal, dataclass_transform

import msgspec

Outcome = Literal["correct", "incorrect", "unscored"]
"""What a checked answer is. `unscored` means nobody knows: it enters no estimate, vote, pair or label."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _RecordMeta(msgspec.StructMeta):
    """Makes every subclass keyword-only too: msgspec hands down `frozen` but not `kw_only`."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> "_RecordMeta":
        return super().__new__(cls, name, bases, namespace, **{"kw_only": True, **config})


class Record(msgspec.Struct, metaclass=_RecordMeta, frozen=True, forbid_unknown_fields=True):
    """A value that flows through the pipeline: frozen, keyword-only, slotted, decoded strictly."""


class Estimate(Record):
    """Counts behind a success rate. They travel together: a rate without its counts is not kept anywhere."""

    correct: int = 0
    """Outcomes that are correct, 0..scored."""
    scored: int = 0
    """Outcomes that are correct or incorrect."""
    unscored: int = 0
    """Outcomes that nobody could decide; outside every rate."""

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            correct=self.correct + other.correct,
            scored=self.scored + other.scored,
            unscored=self.unscored + other.unscored,
        )

    @property
    def rate(self) -> float | None:
        """Share of scored outcomes that are correct, or None where nothing was scored."""
        return self.correct / self.scored if self.scored else None

    @classmethod
    def of(cls, outcomes: "list[Outcome] | tuple[Outcome, ...]") -> "Estimate":
        """Counts outcomes."""
        unscored = sum(outcome == "unscored" for outcome in outcomes)
        correct = sum(outcome == "correct" for outcome in outcomes)
        return cls(correct=correct, scored=len(outcomes) - unscored, unscored=unscored)


class Provenance(Record):
    """How a text came to be: enough to ask the same model the same thing again."""

    model: str
    revision: str
    """Revision or file digest of the model as the engine reports it; empty where it reports none."""
    engine: str
    """Kind of the engine: llama_cpp, vllm, sglang, openai, scripted, simulated."""
    prompt_digest: str
    """Digest of the prompt template that was filled."""
    sampling: str
    """Sampling parameters as canonical JSON."""
    seed: int
    """The run's seed, from which each sample's own is derived."""


def digest(*parts: Any) -> str:
    """Content digest of plain values and records: 32 hex digits, equal on every machine and run."""
    encoded = msgspec.json.encode(parts, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:32]


def uniform(*parts: Any) -> float:
    """A number in [0, 1) that is a function of `parts` alone: for splits, samples and tie-breaks."""
    return int(digest(*parts)[:13], 16) / 16**13
