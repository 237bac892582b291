"""What flows through wrongturn: frozen records and the Arrow schemas they are written with."""

from schemas.base import Estimate, Outcome, Provenance, Record, digest, uniform
from schemas.critique import (
    AgentVote,
    Criticised,
    Critique,
    Empanelled,
    Examined,
    JudgedUnit,
    Panel,
    Unit,
    Verdict,
    Verified,
    View,
)
from schemas.exports import (
    CritiqueDpoRow,
    Message,
    Origin,
    PrmRow,
    RefineChatRow,
    RefineRow,
    RlRow,
    SftRow,
    StepDpoRow,
)
from schemas.ledger import Failure, Rejection, Stage
from schemas.path import Branch, Path, PathAlone, PathPair
from schemas.problem import Image, Problem, media_type_of
from schemas.prompt import Sections, Template
from schemas.tree import Node, Tree
from schemas.untrusted import as_text, as_written, readable, visible

__all__ = [
    "AgentVote",
    "Branch",
    "Criticised",
    "Critique",
    "CritiqueDpoRow",
    "Empanelled",
    "Estimate",
    "Examined",
    "Failure",
    "Image",
    "JudgedUnit",
    "Message",
    "Node",
    "Origin",
    "Outcome",
    "Panel",
    "Path",
    "PathAlone",
    "PathPair",
    "PrmRow",
    "Problem",
    "Provenance",
    "Record",
    "RefineChatRow",
    "RefineRow",
    "Rejection",
    "RlRow",
    "Sections",
    "SftRow",
    "Stage",
    "StepDpoRow",
    "Template",
    "Tree",
    "Unit",
    "Verdict",
    "Verified",
    "View",
    "as_text",
    "as_written",
    "digest",
    "media_type_of",
    "readable",
    "uniform",
    "visible",
]
