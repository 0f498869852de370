"""Two small tables about training: what each method gained, kept and cost, and the gaps on the way."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from workbench.sheet import wording
from workbench.sheet.frontier import Frontier, Point, Score
from workbench.sheet.sheet import Sheet
from workbench.sheet.stability import Gap, Stability
from workbench.sheet.wording import Unit

METHODS_LEGEND = (
    "Means over seeds, ± half of the 95 % interval of the mean (Student's t); with one seed the score, ± the"
    " larger half of the interval of its items. Kept: the retained score as a share of the score of the row"
    " that training began from, chance not subtracted. Of full's gain: the rise of the new skill over that"
    " row, as a share of the rise under the method full. A row is behind another that is at least as good in"
    " both scores and better in one."
)
GAPS_LEGEND = (
    "Of the probes, against the score before training. Depth: the largest fall; with several seeds the mean"
    " of theirs, ± half of its 95 % interval. Back after: tokens from the"
    " first fall until the score is reached again, or > where it never is. Area: the loss"
    " summed over tokens, shares in points. Peak: the highest score and where it was reached."
)


def methods(sheet: Sheet, frontier: Frontier) -> list[list[str]]:
    """The rows of a frontier with their costs, as columns of texts; empty columns are left out."""
    points = frontier.rows
    units = sheet.unit(frontier.new), sheet.unit(frontier.retained)
    columns = [
        [_heading(frontier.new, units[0]), *(_score(point.new, units[0]) for point in points)],
        [_heading(frontier.retained, units[1]), *(_score(point.retained, units[1]) for point in points)],
        ["kept", *(_percent(point.kept) for point in points)],
        ["of full's gain", *(_percent(point.of_full_gain) for point in points)],
        ["trainable", *(_count(point.trainable_parameters) for point in points)],
        ["time", *(wording.duration(point.seconds) for point in points)],
        ["peak memory", *(wording.size(point.peak_memory_bytes) for point in points)],
        ["verdict", *(_verdict(point) for point in points)],
    ]
    return [["row", *(point.variant for point in points)], *(one for one in columns if any(one[1:]))]


def gaps(sheet: Sheet, found: Sequence[Stability]) -> list[list[str]]:
    """The gaps of all curves that fell below their start, as columns of texts; empty where none did."""
    fallen = [one for one in found if one.gap.depth > 0]
    if not fallen:
        return []
    units = [sheet.unit(one.metric) for one in fallen]
    listed = list(zip((one.gap for one in fallen), units, strict=True))
    return [
        ["row", *(one.variant for one in fallen)],
        ["probe", *(wording.subject(one.metric) for one in fallen)],
        ["depth", *(_depth(one, unit) for one, unit in zip(fallen, units, strict=True))],
        ["back after", *(_length(gap) for gap, _ in listed)],
        ["area", *(wording.count(100 * gap.area if unit == "share" else gap.area) for gap, unit in listed)],
        ["at the end", *(wording.score(gap.last, unit) for gap, unit in listed)],
        ["peak", *(_peak(gap, unit) for gap, unit in listed)],
    ]


def _peak(gap: Gap, unit: Unit) -> str:
    return f"{wording.score(gap.peak, unit)} at {wording.count(gap.peak_tokens)}"


def _heading(metric: str, unit: Unit) -> str:
    return f"{wording.subject(metric)}{' %' if unit == 'share' else ''}"


def _score(score: Score, unit: Unit) -> str:
    text = wording.amount(score.mean, unit)
    if score.ci is None:
        return text
    half = max(score.ci.high - score.mean, score.mean - score.ci.low)
    return f"{text} ±{wording.amount(half, unit, like=score.mean)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %".replace("-", wording.MINUS)


def _count(value: int | None) -> str:
    return "" if value is None else wording.count(value)


def _verdict(point: Point) -> str:
    return "on the frontier" if point.on_frontier else f"behind {point.dominated_by}"


def _depth(one: Stability, unit: Unit) -> str:
    """The depth of the mean curve; with several seeds the mean of their depths, and half its interval."""
    depth, spread = one.gap.depth, ""
    if one.ci is not None:
        depth = fmean(one.depths)
        spread = f" ±{wording.amount(one.ci.high - depth, unit, like=depth)}"
    return f"{wording.amount(depth, unit)}{spread}{' points' if unit == 'share' else ''}"


def _length(gap: Gap) -> str:
    return wording.count(gap.at_least) if gap.recovered else f"> {wording.count(gap.at_least)}"
