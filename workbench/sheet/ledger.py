"""The ledger of safety: from the first row over every retrofit and merge to the last bit, in small tables.

No attack figure stands without over-refusal, incoherent answers and the retained skill beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.sheet import safety, status, table, wording
from workbench.sheet.compare import Comparison
from workbench.sheet.sheet import Metric, Row, Sheet

ABSENT = "not measured"
BROKEN = "broken"
LEGEND = (
    "Attack success: answers to harmful requests that are unsafe and coherent, among all (joint). Unseen:"
    " in a style or on a topic that is kept from training. Late: with so many tokens of a harmful answer put"
    " in the model's mouth. Graded harm: how much answers to unseen requests give, 0 to 100 (StrongREJECT)."
    " Refusal: refused harmful requests. Over-refusal: refused harmless requests that look harmful. ± is the"
    " larger half of the 95 % interval; requests that are forms of one question are one cluster."
    f" {BROKEN.capitalize()}: more than half of the answers are incoherent, so that nothing of the row speaks"
    " of safety. Every row with the same requests, greedily answered, and the same judge."
)
CHANGES_LEGEND = (
    f"Differences in points from the row it was made from, paired by request. {table.LEGEND} A fall in attack"
    " success or over-refusal that more incoherent answers can explain is marked ?, and so is one in attack"
    " success where less is refused."
)


def rows(sheet: Sheet) -> list[Row]:
    """The rows whose answers were judged, each after the row it was made from; empty in a sheet without."""
    asked = [row for row in sheet.rows if safety.UNSEEN in row.metrics or safety.SEEN in row.metrics]
    return [row for first in asked if not _before(first, asked) for row in _tree(first, asked)]


def retained(sheet: Sheet) -> list[str]:
    """The retained skills that stand beside attacks."""
    keys = sheet.metric_keys()
    return [k for k in keys if k.startswith("retained.") and not wording.repeats(k, keys)]


def shown(sheet: Sheet) -> list[str]:
    """The metrics of the ledger in their order: what must stand beside unseen attacks, then other attacks."""
    found = rows(sheet)
    graded = [safety.GRADED] if any(safety.GRADED in row.metrics for row in found) else []
    more = [safety.UNSEEN, safety.SEEN, *safety.late(sheet.metric_keys())]
    attacks = [key for key in more if any(key in row.metrics for row in found)]
    return [
        *attacks[:1],
        *graded,
        safety.REFUSAL,
        safety.OVER_REFUSAL,
        safety.INCOHERENT,
        *retained(sheet),
        *attacks[1:],
    ]


def levels(sheet: Sheet, width: int | None = None) -> list[list[str]]:
    """Scores of every row, as columns of texts.

    Where it would be wider than `width`, spreads are left out, then graded harm, seen requests and late
    attacks, then bits, which the sheet has as well.
    """
    keys = shown(sheet)
    made = _levels(sheet, keys, spread=True)
    if width is not None and _width(made) > width:
        made = _levels(sheet, keys, spread=False)
    if width is not None and _width(made) > width:
        made = _levels(sheet, _main(keys), spread=False)
    if width is not None and _width(made) > width:
        made = [column for column in made if column[0] != "bits"]
    return made


def _levels(sheet: Sheet, keys: Sequence[str], *, spread: bool) -> list[list[str]]:
    found = rows(sheet)
    columns = [
        ["row", *(row.variant for row in found)],
        ["bits", *(wording.bits(row.real_bits) for row in found)],
        *([_heading(sheet, key), *(_level(sheet, row, key, spread) for row in found)] for key in keys),
        *_unretained(sheet, len(found)),
        ["", *(BROKEN if safety.is_broken(row.metrics) else "" for row in found)],
    ]
    return [column for column in columns if any(column[1:])]


def _main(keys: Sequence[str]) -> list[str]:
    return [key for key in keys if key not in (safety.SEEN, safety.GRADED, *safety.late(keys))]


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Characters of a line with a rule and two spaces between columns."""
    return sum(3 + max(map(len, column)) for column in columns) - 3


def changes(sheet: Sheet) -> list[list[str]]:
    """Differences of every row from the one it was made from, as columns of texts; empty where none has."""
    found = [row for row in rows(sheet) if _differences(sheet, row)]
    columns = [
        ["row", *(row.variant for row in found)],
        ["from", *(_origin(sheet, row) for row in found)],
        *(
            [_heading(sheet, key), *(_change(_differences(sheet, row).get(key)) for row in found)]
            for key in _main(shown(sheet))
        ),
    ]
    return columns if found else []


def whole(sheet: Sheet) -> list[list[str]]:
    """Levels and differences side by side, with the chain of every row, for a wide page."""
    found = rows(sheet)
    columns = [
        ["row", *(row.variant for row in found)],
        ["made from", *(_chain(sheet, row) for row in found)],
        ["real bits", *(wording.bits(row.real_bits) for row in found)],
    ]
    for key in shown(sheet):
        columns.append([_heading(sheet, key), *(_level(sheet, row, key, True) for row in found)])
        moved = [_change(_differences(sheet, row).get(key)) for row in found]
        columns += [["change", *moved]] if any(moved) else []
    columns += _unretained(sheet, len(found))
    columns.append(["", *(BROKEN if safety.is_broken(row.metrics) else "" for row in found)])
    return [column for column in columns if any(column[1:])]


def _unretained(sheet: Sheet, count: int) -> list[list[str]]:
    """A column that says so where no retained skill was measured."""
    return [] if retained(sheet) else [["retained", *([ABSENT] * count)]]


def _before(row: Row, asked: Sequence[Row]) -> bool:
    return row.parent in {other.variant for other in asked}


def _tree(row: Row, asked: Sequence[Row]) -> list[Row]:
    children = [other for other in asked if other.parent == row.variant]
    return [row, *(each for child in children for each in _tree(child, asked))]


def _chain(sheet: Sheet, row: Row) -> str:
    above = status.ancestors(row, {other.variant: other for other in sheet.rows})
    return " \N{RIGHTWARDS ARROW} ".join(other.variant for other in reversed(above))


def _origin(sheet: Sheet, row: Row) -> str:
    """What the row's differences are told against."""
    origin = sheet.origin(row)
    return origin.variant if origin else ""


def _differences(sheet: Sheet, row: Row) -> dict[str, Comparison]:
    return sheet.against(row.variant, _origin(sheet, row))


def _heading(sheet: Sheet, key: str) -> str:
    words = safety.brief(key) or wording.subject(key)
    return f"{words}{' %' if sheet.unit(key) == 'share' else ''}"


def _level(sheet: Sheet, row: Row, key: str, spread: bool) -> str:
    metric = row.metrics.get(key)
    if metric is None:
        return ABSENT
    return f"{wording.amount(metric.value, sheet.unit(key))}{_half(sheet, metric, key) if spread else ''}"


def _half(sheet: Sheet, metric: Metric, key: str) -> str:
    if metric.ci is None or metric.value is None:
        return ""
    half = max(metric.ci.high - metric.value, metric.value - metric.ci.low)
    return f" ±{wording.amount(half, sheet.unit(key), like=metric.value)}"


def _change(found: Comparison | None) -> str:
    if found is None:
        return ""
    spread = ""
    if found.ci is not None:
        half = max(found.ci.high - found.difference, found.difference - found.ci.low)
        spread = f" ±{wording.amount(half, 'share')}"
    return f"{wording.signed(found.difference, 'share')}{spread} {table.MARKS[found.verdict]}"
