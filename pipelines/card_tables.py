"""What the dataset card says is in each table, as the settings of the run have it."""

from collections.abc import Iterable, Mapping

from annotators.exports import ExportSettings
from annotators.helping import HELP_TESTS
from annotators.preferences import Score
from annotators.rounds import RowKind
from annotators.verification import VerifySettings
from pipelines.card_data import in_code
from pipelines.settings import Settings
from schemas import JudgeKind

_WHAT = {
    "step_dpo": "a right solution against a wrong one that begins with the same steps: `prompt`, `chosen`, `rejected`",
    "dpo": "answers with and without a user's feedback, in its scope and outside: `prompt`, `chosen`, `rejected`",
    "prm": "solutions with one label a step: `prompt`, `completions`, `labels`",
    "trees": "every tree, node by node",
    "pairs": "wrong paths with the right ones that they part from",
    "alone": "right paths without a partner",
    "dialogues": "attempts at one problem with feedback between them, and how each ended",
    "critiques": "every critique that could be read",
    "panels": "what the critics of a path say together",
    "verified": "every critique that could be kept, with the tests that it fails and what was measured of it",
    "rejections": "everything that was looked at and found unfit, with its reason",
    "failures": "everything that could not be looked at",
}
"""Whatever is set."""

_PREFERRED: dict[Score, str] = {
    "verified": "a critique that passed the tests against one of the same solution that failed",
    "utility": "of two critiques of one solution, the one after which second solutions are better",
    "jaccard": "of two critiques of one solution, the one whose errors are more nearly the known ones",
    "severity": "of two critiques of one solution, the one of whose remarks the meta-critic's votes leave more",
}
"""By `export.prefer.by`."""

_RL = {
    "paths": "`prompt`, label, first wrong step, rates and rewards: verifiable rewards for critics",
    "rollouts": "solutions with their outcomes and the rates of their problems: `prompt`, `solution`, `label`",
    "problem_pairs": "problems to solve, a hard one and a brittle one in each `pair`: `prompt`, `answer`",
    "claims": "what critics claim, and the solutions that they claim it of: `prompt`, `completion`, `reward`",
}
"""By `export.rl`."""

_JUDGEMENTS: dict[JudgeKind, str] = {
    "pointwise": "is a solution right",
    "pairwise": "which of two is better",
    "reflected": "is one right, a critique of it beside it",
}
"""By `export.judge`."""

_DISTILLED: dict[RowKind, str] = {
    "distill": "problem and the right attempt that feedback led to",
    "feedback": "attempt and feedback",
    "agreeing_feedback": "attempt and feedback that does not contradict the checker",
}
"""By `loop.rows`."""


_OF_CRITICS = ("sft", "critique_dpo", "critiques", "panels", "verified")
_NOBODY = "nothing, since no path was picked for critics"


def tables_said(settings: Settings) -> dict[str, str]:
    """What is in each table, by its name."""
    export, of_dialogues = settings.export, settings.loop.rows
    nobody_asked = (
        {} if settings.pairing.max_pairs or settings.pairing.max_alone else dict.fromkeys(_OF_CRITICS, _NOBODY)
    )
    return _WHAT | {
        "sft": f"{_imitated(settings.verify, export)}: `prompt` and `completion`, or `messages`",
        "critique_dpo": f"{_preferred(settings.verify, export)}: `prompt`, `chosen`, `rejected`",
        "refine": _refined(of_dialogues),
        "refine_chat": f"{_turns(export, of_dialogues)}: `prompt`, `completion`",
        "distill": f"from dialogues, not verified: {_named(_DISTILLED, of_dialogues)}",
        "rl": _RL[export.rl] + ("; and bare problems to solve, `task` says which" if export.plain_share else ""),
        "judge": f"judgements with known truth: {_named(_JUDGEMENTS, export.judge)}",
        **nobody_asked,
    }


def _imitated(verify: VerifySettings, export: ExportSettings) -> str:
    if not verify.tests:
        return "critiques to imitate, none of which had to pass a test, so that what they say may be wrong"
    if export.feedback == "both_marked":
        return "critiques that passed and critiques that failed, each with its mark in the `prompt`"
    said = "critiques to imitate that passed every test named below"
    if not any(name in HELP_TESTS and name != "hurts" for name in verify.tests):
        return f"{said}; whether they help decided nothing"
    return f"{said}, of help, too" + (" (of right solutions: that they do no harm)" if "hurts" in verify.tests else "")


def _preferred(verify: VerifySettings, export: ExportSettings) -> str:
    prefer = export.prefer
    if prefer.by == "verified" and not verify.tests:
        return "nothing, since no test decides, and no critique fails that another could be preferred to"
    said = _PREFERRED[prefer.by]
    if prefer.needs_help:
        said += ", and with which more second solutions come out right"
    if prefer.rejected_agents:
        said += f"; rejected are those by {', '.join(in_code(name, in_table=True) for name in prefer.rejected_agents)}"
    return said


def _refined(of_dialogues: Iterable[RowKind]) -> str:
    said = "problem, first answer, critique, second answer, and the outcomes of both"
    return (
        f"{said}; those of dialogues had to pass no test (`decision` is `kept`)" if "refine" in of_dialogues else said
    )


def _turns(export: ExportSettings, of_dialogues: Iterable[RowKind]) -> str:
    """The conversations that are asked for; of none, what would be there."""
    dialogues = "dialogues up to a right attempt as turns, feedback not verified"
    critiques = "first answer, kept critique and right second answer as turns"
    if "refine_chat" not in of_dialogues:
        return critiques
    return f"{critiques}; and {dialogues}" if export.refine_turns else dialogues


def _named(said: Mapping[RowKind, str] | Mapping[JudgeKind, str], kinds: Iterable[str]) -> str:
    """What is said of those of the kinds that are asked for; of none, of all there are."""
    return "; ".join([text for kind, text in said.items() if kind in kinds] or said.values())
