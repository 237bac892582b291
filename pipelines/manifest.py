"""The books of a run: what went into each stage and where it ended, counted from what is written."""

import contextlib
import dataclasses
import importlib.metadata
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import msgspec

from annotators.dialogue import DIALOGUE_REJECTIONS, DIALOGUE_ROW_REJECTIONS, count_starts
from annotators.exports import EXPORT_ROW_REJECTIONS
from annotators.rounds import Loop, NoLoop
from pipelines.engines.base import Usage
from pipelines.engines.managed import count_restarts
from pipelines.meter import METER, Refusals
from pipelines.output import Output, OutputError
from pipelines.plan import Plan
from pipelines.shards import SPLITS, num_rows, read_file, read_rows
from pipelines.storage import write_whole
from schemas import Record, Tree
from schemas.arrow import CONFIGS, from_row

_PACKAGES = ("apache-beam", "crowd-kit", "math-verify", "msgspec", "pyarrow", "reasoning-gym")
"""Versions that a row may depend on."""


class StageCount(Record):
    """One stage's elements. `entered` = `kept` + `rejected` + `failed`, or something was lost."""

    stage: str
    element: str
    """What is counted."""
    entered: int
    kept: int
    rejected: int
    failed: int
    reasons: dict[str, int]
    """Rejections by reason and failures by error, most frequent first."""

    @property
    def balanced(self) -> bool:
        """Whether every element ended in exactly one place."""
        return self.entered == self.kept + self.rejected + self.failed

    @property
    def num_tried(self) -> int:
        """What failures are a share of. ExpandTrees rejects solutions that came with its problems, and no problem."""
        return self.entered - (self.rejected if self.stage == "ExpandTrees" else 0)

    @property
    def failure_share(self) -> float:
        """Failed elements over all that were tried, 0..1; 1 where nothing was kept and something failed."""
        if not (self.failed and self.kept):
            return float(self.failed > 0)
        return self.failed / max(self.num_tried, 1)


class Books(Record):
    """The funnel of a run, and the size of every table."""

    stages: tuple[StageCount, ...]
    rows: dict[str, int]
    """By table."""
    rows_by_split: dict[str, int]
    """By `table/split`."""
    pair_reasons: dict[str, int] = msgspec.field(default_factory=dict)
    """Why the rejected ones of `critique_dpo` were rejected, by first reason, most frequent first."""

    @property
    def worst(self) -> StageCount:
        """The stage with the largest share of failed elements; the first of them."""
        return max(self.stages, key=lambda stage: stage.failure_share)

    @property
    def failure_share(self) -> float:
        """That of the worst stage, 0..1: neither rejected rows of the source nor the many critiques hide lost trees."""
        return self.worst.failure_share if self.stages else 0.0

    @property
    def num_accepted(self) -> int:
        """Rows of `sft` whose critique passed."""
        return sum(stage.kept for stage in self.stages if stage.stage == "WriteShards")


class ExtraStages(Record):
    """Stages that a run has only where it is asked for them."""

    loop: Loop = NoLoop()
    """What dialogues were held, if any."""
    sifts: bool = False
    """Whether memorised problems were looked for. What is kept of them is written nowhere by itself: a problem that is
    lost there shows in the sum of ExpandTrees."""
    scopes: bool = False
    """Whether answers were revised by a piece of feedback."""


_NO_EXTRA = ExtraStages()


@dataclasses.dataclass
class _Ends:
    """Where the elements of one stage ended that were not kept."""

    rejected: int = 0
    failed: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)


def _ends(out: Path) -> defaultdict[str, _Ends]:
    ends: defaultdict[str, _Ends] = defaultdict(_Ends)
    for row in read_rows(out, "rejections", ["stage", "reason"]):
        ends[row["stage"]].rejected += 1
        ends[row["stage"]].reasons[row["reason"]] += 1
    for row in read_rows(out, "failures", ["stage", "error"]):
        ends[row["stage"]].failed += 1
        ends[row["stage"]].reasons[row["error"]] += 1
    return ends


def _num_paired(out: Path) -> int:
    """Trees with a path, counted shard by shard: a tree and its paths are in files of one name."""
    paths = [out / config for config in ("pairs", "alone")]
    names = {file.name for folder in paths for file in folder.glob("*.parquet")}
    files = ([folder / name for folder in paths if (folder / name).is_file()] for name in names)
    return sum(len({row["tree_id"] for file in group for row in read_file(file, ["tree_id"])}) for group in files)


def _num_left_out(ends: _Ends) -> int:
    """Rows of no critique that WriteShards leaves out; they count beside the critiques that it is given."""
    return sum(ends.reasons[reason] for reason in (*DIALOGUE_ROW_REJECTIONS, *EXPORT_ROW_REJECTIONS))


def _num_verified(out: Path) -> int:
    """Rows of `sft` whose critique passed: rejected ones may stand beside them, marked."""
    return sum(row["decision"] == "kept" for row in read_rows(out, "sft", ["decision"]))


def _rows_by_split(out: Path) -> dict[str, int]:
    return {
        f"{config}/{split}": sum(num_rows(path) for path in (out / config).glob(f"{split}-*.parquet"))
        for config in CONFIGS
        for split in SPLITS
    }


def _dialogues(out: Path, loop: Loop) -> tuple[tuple[str, str, int, int], ...]:
    """What went into the loop and what was kept of it; nothing where there is none."""
    if isinstance(loop, NoLoop):
        return ()
    begun = sum(count_starts(from_row(row, Tree), loop) for row in read_rows(out, "trees"))
    held = sum(row["ended"] not in DIALOGUE_REJECTIONS for row in read_rows(out, "dialogues", ["ended"]))
    return (("HoldDialogues", "dialogues begun", begun, held),)


def keep_books(
    out: Path,
    *,
    num_read: int,
    num_problems: int,
    num_agents: int,
    num_contrastive: int,
    extra: ExtraStages = _NO_EXTRA,
) -> Books:
    """Counts what a run has written.

    What enters a stage is counted where it left the stage before, so that nothing can be lost between the two
    without the sums showing it.

    Args:
      out: the output folder.
      num_read: rows that the source had, problems or not.
      num_problems: problems among them.
      num_agents: critics in the panel.
      num_contrastive: those of them that are asked about pairs only.
      extra: stages that not every run has.
    """
    ends = _ends(out)
    sifted = num_problems - ends["SiftProblems"].rejected - ends["SiftProblems"].failed
    by_split = _rows_by_split(out)
    rows = {config: sum(by_split[f"{config}/{split}"] for split in SPLITS) for config in CONFIGS}
    paths = rows["pairs"] + rows["alone"]
    asked = paths * num_agents - rows["alone"] * num_contrastive
    paired = _num_paired(out)
    candidates = sum(len(row["candidates"]) for row in read_rows(out, "panels", ["candidates"]))
    kept = sum(row["decision"] == "kept" for row in read_rows(out, "verified", ["decision"]))
    flow = (
        ("ReadProblems", "rows", num_read, num_problems),
        *((("SiftProblems", "problems", num_problems, sifted),) if extra.sifts else ()),
        # What it rejects are solutions that came with problems, and count beside them.
        ("ExpandTrees", "problems", sifted + ends["ExpandTrees"].rejected, rows["trees"]),
        ("PairPaths", "trees", rows["trees"], paired),
        *_dialogues(out, extra.loop),
        *((("ScopeFeedback", "trees", rows["trees"], rows["dpo"]),) if extra.scopes else ()),
        ("WriteCritiques", "critiques asked for", asked, rows["critiques"]),
        ("AggregateCritiques", "paths", paths, rows["panels"]),
        ("VerifyCritiques", "critiques", candidates, kept),
        ("WriteShards", "verified critiques", kept + _num_left_out(ends["WriteShards"]), _num_verified(out)),
    )
    stages = tuple(
        StageCount(
            stage=stage,
            element=element,
            entered=entered,
            kept=left,
            rejected=ends[stage].rejected,
            failed=ends[stage].failed,
            reasons=dict(ends[stage].reasons.most_common()),
        )
        for stage, element, entered, left in flow
    )
    failed = (row["rejected_reasons"] for row in read_rows(out, "critique_dpo", ["rejected_reasons"]))
    reasons = Counter(names[0] for names in failed if names)
    return Books(stages=stages, rows=rows, rows_by_split=by_split, pair_reasons=dict(reasons.most_common()))


_REFUSED = "refused.json"


def note_refusals(logs: Path) -> Refusals:
    """Adds the refused requests that the meter has counted since to those in the folder of logs.

    Called whenever a shard is finished: what it was refused is asked again by nobody, so that the number is that of all
    starts of the command, whatever becomes of this one.

    Returns:
      All of them.
    """
    path = logs / _REFUSED
    known = Refusals()
    if path.is_file() and not path.is_symlink():
        with contextlib.suppress(msgspec.MsgspecError):  # Somebody else's, or cut: counted anew.
            known = msgspec.json.decode(path.read_bytes(), type=Refusals)
    taken = METER.take_refusals()
    if not taken.requests:
        return known
    logs.mkdir(exist_ok=True)
    write_whole(path, msgspec.json.encode(known + taken))
    return known + taken


def write_manifest(output: Output, plan: Plan, books: Books, ledger: Mapping[str, Usage]) -> None:
    """Writes `run.json`: config, digests, versions, counts that add up, what it paid, and each shard's digest.

    And how often servers of the run's own were started again, and what servers refused, in all starts of the command.
    """
    config = msgspec.to_builtins(plan.settings)
    del config["out"], config["journal"]  # Where the data and the journal lay is nobody's business who gets the data.
    manifest = {
        "version": plan.context.version,
        "config_digest": plan.config_digest,
        "seed": plan.settings.seed,
        "stages": [msgspec.to_builtins(stage) | {"balanced": stage.balanced} for stage in books.stages],
        "rows": books.rows_by_split,
        "critique_dpo_reasons": books.pair_reasons,
        "paid": ledger,
        "server_restarts": count_restarts(output.path / "logs"),
        "refused": note_refusals(output.path / "logs"),
        "shards": output.digests(plan.num_shards),
        "config": config,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    output.write("run.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2).decode() + "\n")


class _StageCount(StageCount, forbid_unknown_fields=False):
    """A stage as `run.json` has it, where it also says whether it adds up."""


class _Manifest(msgspec.Struct):
    """The part of `run.json` that is read back."""

    stages: list[_StageCount]
    rows: dict[str, int]
    critique_dpo_reasons: dict[str, int] = {}


def read_books(out: Path) -> Books:
    """The books of a finished run, from its `run.json`.

    Raises:
      OutputError: there is none, or it is damaged.
    """
    path = out / "run.json"
    if not path.is_file():
        raise OutputError(f"{path.absolute()} is missing: the run has not finished; give its command again")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OutputError(
            f"{path.absolute()} is damaged ({error}); give the run's command again, which writes it anew"
        ) from error
    stages = tuple(StageCount(**msgspec.structs.asdict(stage)) for stage in manifest.stages)
    rows: Counter[str] = Counter()
    for name, count in manifest.rows.items():
        rows[name.partition("/")[0]] += count
    return Books(
        stages=stages, rows=dict(rows), rows_by_split=manifest.rows, pair_reasons=manifest.critique_dpo_reasons
    )
