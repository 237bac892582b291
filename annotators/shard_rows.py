"""What can be decided about a row only with the other rows beside it: those of its table, split and shard.

Nothing here depends on the order of the rows: what is taken is what has the smaller digest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from annotators.exports import ExportSettings
from annotators.path_rows import Rates
from schemas import JudgeRow, PrmRow, Record, Rejection, RlRow, SftRow, digest

Keyed = tuple[str, Record]
"""A row and the key that it is sorted by."""


def left_out(rows: Sequence[Record], settings: ExportSettings) -> tuple[Rejection, ...]:
    """What becomes of the rows that the others of their table leave no room for: rejections that bear the rows' ids.

    Args:
      rows: all of a table, split and shard, of one record: `SftRow`, `RlRow` or `PrmRow`.
      settings: how labels are balanced.
    """
    labelled = [row for row in rows if isinstance(row, SftRow | RlRow)]
    spare = surplus(labelled, settings)
    twice = repeats([row for row in rows if isinstance(row, PrmRow)])
    return (
        *(
            _rejection(row, "balance" if isinstance(row, SftRow) else "rl_balance", str(row.label))
            for row in labelled
            if row.id in spare
        ),
        *(_rejection(row, "repeated_path", f"prm has it as {other}") for row, other in twice),
    )


def _rejection(row: SftRow | RlRow | PrmRow, reason: str, detail: str) -> Rejection:
    problem_id = row.origin.problem_id
    return Rejection(stage="WriteShards", key=row.id, problem_id=problem_id, reason=reason, detail=detail)


def surplus(rows: Sequence[SftRow | RlRow], settings: ExportSettings) -> frozenset[str]:
    """Ids of the rows that a table does without, so that its labels are balanced.

    Which rows of a label stay depends on their ids alone, never on their order. Rows that bear no label do not count:
    of `sft` marked rejected critiques, of `rl` bare problems. Neither do claims: they come in twos, for both sides of
    one game.
    """
    labels = {row.id: row.label for row in rows if _counts(row, settings)}
    right, wrong = (
        _shuffled((row_id for row_id, label in labels.items() if label == wanted), "balance")
        for wanted in ("correct", "incorrect")
    )
    stay = (len(right), len(wrong))
    # What one bound lowers can be too low for the other one, as numbers are rounded down.
    while (fewer := _bounded(*stay, settings)) != stay:
        stay = fewer
    return frozenset(right[stay[0] :] + wrong[stay[1] :])


def _bounded(num_right: int, num_wrong: int, settings: ExportSettings) -> tuple[int, int]:
    num_right = _at_most(num_right, settings.correct_per_incorrect, num_wrong)
    return num_right, _at_most(num_wrong, settings.incorrect_per_correct, num_right)


def _at_most(number: int, most: float | None, num_others: int) -> int:
    # 0.29 of a hundred are 29: floating point must not make it 28.
    return number if most is None else min(number, int(most * num_others + 1e-9))


def _counts(row: SftRow | RlRow, settings: ExportSettings) -> bool:
    return row.decision == "kept" if isinstance(row, SftRow) else settings.rl != "claims"


def repeats(rows: Sequence[PrmRow]) -> list[tuple[PrmRow, str]]:
    """Rows whose path stands in a row with a smaller id, and that one's id.

    Pairs of a tree may share their right side.
    """
    first: dict[tuple[str, tuple[int, ...]], str] = {}
    found = []
    for row in sorted(rows, key=lambda row: row.id):
        stays = first.setdefault((row.origin.tree_id, row.origin.node_ids), row.id)
        if stays != row.id:
            found.append((row, stays))
    return found


def settled(rows: Sequence[Keyed], rates: Iterable[Rates], settings: ExportSettings) -> list[Keyed]:
    """The rows of a shard's table as they are written, with the keys that they came with.

    Args:
      rows: all of them, of one record.
      rates: of paths whose rows of `rl` are among them.
      settings: which rows are wanted.
    """
    spare = surplus_judgements([row for _, row in rows if isinstance(row, JudgeRow)], settings)
    bare = [row for _, row in rows if isinstance(row, RlRow) and row.task == "solve"]
    pairs: Mapping[str, str] = {}
    if settings.rl == "problem_pairs":
        pairs = problem_pairs(bare)
        spare |= {row.id for row in bare if row.id not in pairs}
    elif settings.rl == "paths":
        spare |= surplus_plain(bare, len(rows) - len(bare), settings)
    measured = {each.row_id: each for each in rates}
    return [
        (key, _completed(row, measured.get(row.id), pairs.get(row.id, "")) if isinstance(row, RlRow) else row)
        for key, row in rows
        if not (isinstance(row, JudgeRow | RlRow) and row.id in spare)
    ]


def _completed(row: RlRow, rates: Rates | None, pair: str) -> RlRow:
    """A row with what others know of it."""
    if rates is None:
        return msgspec.structs.replace(row, pair=pair)
    return msgspec.structs.replace(
        row, pair=pair, with_critique=rates.with_critique, without_critique=rates.without_critique
    )


def problem_pairs(rows: Sequence[RlRow]) -> dict[str, str]:
    """By row the name of its pair: each a hard but solvable problem and an easy but brittle one, no problem twice."""
    by_kind = {
        kind: _shuffled((row.id for row in rows if row.difficulty == kind), "pair")
        for kind in ("hard_but_solvable", "easy_but_brittle")
    }
    names = {}
    for hard, easy in zip(*by_kind.values(), strict=False):
        names[hard] = names[easy] = digest("problem pair", hard, easy)
    return names


def surplus_plain(rows: Sequence[RlRow], num_others: int, settings: ExportSettings) -> frozenset[str]:
    """Ids of the bare problems that are more than `plain_share` of all rows with them.

    Args:
      rows: the bare problems.
      num_others: rows that are none.
      settings: the share.
    """
    # A share of 0.2 of five rows is one: floating point must not make it none.
    most = int(settings.plain_share * num_others / (1 - settings.plain_share) + 1e-9)
    return frozenset(_shuffled((row.id for row in rows), "plain")[most:])


def surplus_judgements(rows: Sequence[JudgeRow], settings: ExportSettings) -> frozenset[str]:
    """Ids of `reflected` judgements beyond what a problem may have, then of the more frequent label's surplus.

    A problem's paths often have one label, so that the balance is one of many problems.
    """
    reflected = {row.id: row for row in rows if row.kind == "reflected"}
    taken: Counter[str] = Counter()
    bounded: list[JudgeRow] = []
    for row_id in _shuffled(reflected, "judge"):
        row = reflected[row_id]
        taken[row.origin.problem_id] += 1
        if taken[row.origin.problem_id] <= settings.judge_per_problem:
            bounded.append(row)
    labels = Counter(row.label for row in bounded)
    most = min(labels["correct"], labels["incorrect"])
    seen: Counter[str] = Counter()
    for row in bounded:
        seen[row.label] += 1
        if seen[row.label] <= most:
            del reflected[row.id]
    return frozenset(reflected)


def _shuffled(ids: Iterable[str], what: str) -> list[str]:
    return sorted(ids, key=lambda row_id: digest(what, row_id))
