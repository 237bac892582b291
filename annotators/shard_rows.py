"""What can be decided about a row only with the other rows beside it: those of its table, split and shard.

Nothing here depends on the order of the rows: what is taken is what has the smaller digest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from annotators.exports import ExportSettings
from annotators.path_rows import Rates
from schemas import JudgeRow, Record, RlRow, SftRow, digest

Keyed = tuple[str, Record]
"""A row and the key that it is sorted by."""


def surplus(rows: Sequence[SftRow], settings: ExportSettings) -> frozenset[str]:
    """Ids of the rows that a table of verified critiques does without, so that its labels are balanced.

    Which rows about right solutions stay depends on their ids alone, never on their order. Marked rejected critiques
    are no verified ones and do not count.
    """
    if settings.correct_per_incorrect is None:
        return frozenset()
    verified = [row for row in rows if row.decision == "kept"]
    right = _shuffled((row.id for row in verified if row.label == "correct"), "balance")
    most = int(settings.correct_per_incorrect * (len(verified) - len(right)))
    return frozenset(right[most:])


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
