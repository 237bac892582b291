"""Where elements end that are not kept: every one of them is a row."""

from typing import Literal

from schemas.base import Record

Stage = Literal[
    "ReadProblems",
    "SiftProblems",
    "ExpandTrees",
    "PairPaths",
    "HoldDialogues",
    "ScopeFeedback",
    "WriteCritiques",
    "AggregateCritiques",
    "VerifyCritiques",
    "WriteShards",
]


class Rejection(Record):
    """An element that was looked at and found unfit."""

    stage: Stage
    key: str
    """Id of the element in its stage."""
    problem_id: str
    reason: str
    """From the stage's closed list of reasons."""
    detail: str = ""
    """What was seen, for people."""


class Failure(Record):
    """An element that nobody could look at: an outage or a refused request, never the model's answer."""

    stage: Stage
    key: str
    problem_id: str
    request_digest: str
    """Digest of the request that failed; empty where none was sent."""
    error: str
    """Class of the error."""
    detail: str
    attempts: int
    """Requests sent before giving up."""
