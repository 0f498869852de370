"""The frontier of learning and forgetting: each unquantized row as a point of retained and new skill.

A row dominates another when it is at least as good in both scores and better in one; the frontier is
the Pareto set, the rows that no row dominates. Rows are placed by their means, so two whose intervals
overlap may change places under other seeds.

Source: Biderman et al., arXiv 2405.09673, on methods as points of a learning-forgetting plane.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from workbench.sheet import wording
from workbench.sheet.sheet import Metric, Row, Sheet
from workbench.sheet.statistics import Interval

SCHEMA = "workbench.frontier/1"


@dataclass(frozen=True)
class Score:
    """A score as the frontier takes it: the mean over seeds and its interval, else that of the items."""

    mean: float
    ci: Interval | None
    seeds: list[float]


@dataclass(frozen=True)
class Point:
    """One row on the plane.

    Attributes:
        kept: retained score as a share of its origin's; inverted where lower is better.
        of_full_gain: gain in new skill over the origin, as a share of what `full` gained from there.
        dominated_by: the first row of the frontier that dominates it.
    """

    variant: str
    method: str
    retained: Score
    new: Score
    kept: float | None
    of_full_gain: float | None
    trainable_parameters: int | None
    seconds: float | None
    peak_memory_bytes: int | None
    on_frontier: bool = True
    dominated_by: str | None = None


@dataclass(frozen=True)
class Frontier:
    """All points for one retained and one new metric, in the order of the sheet."""

    retained: str
    new: str
    rows: list[Point]

    def point(self, variant: str) -> Point | None:
        """The point of a row; None where it is quantized or lacks a score."""
        return next((point for point in self.rows if point.variant == variant), None)

    def to_json(self) -> dict[str, Any]:
        """The record frontier.json."""
        points = [asdict(point) for point in self.rows]
        for point in points:
            for aspect in ("retained", "new"):
                ci = point[aspect]["ci"]
                point[aspect]["ci"] = [ci["low"], ci["high"]] if ci else None
        return {"schema": SCHEMA, "retained": self.retained, "new": self.new, "rows": points}


def score(metric: Metric | None) -> Score | None:
    """Where a metric stands; None where it is not a finite number under every seed."""
    if metric is None or metric.value is None:
        return None
    seeds = [value for value in metric.seeds if value is not None]
    if len(seeds) < len(metric.seeds):
        return None
    if metric.seeds_ci is not None:
        return Score(float(np.mean(seeds)), metric.seeds_ci, seeds)
    return Score(metric.value, metric.ci, seeds)


def frontiers(sheet: Sheet) -> list[Frontier]:
    """One frontier for each pair of a retained and a new metric that some row has; the main one first."""
    keys = sheet.metric_keys()
    told = [key for key in keys if not wording.repeats(key, keys)]
    retained = [key for key in told if key.startswith("retained.")]
    new = [key for key in told if key.startswith("new.")]
    found = [frontier(sheet, one, other) for one in retained for other in new]
    return [one for one in found if one.rows]


def frontier(sheet: Sheet, retained: str, new: str) -> Frontier:
    """Place every unquantized row and say which of them no other beats.

    Args:
        sheet: the sheet.
        retained: key of the metric that should be kept.
        new: key of the metric that should be learnt.
    """
    rows = [row for row in sheet.rows if row.nominal_bits is None]
    placed = [point for row in rows if (point := _point(sheet, row, retained, new))]
    x_sign, y_sign = sheet.sign(retained), sheet.sign(new)
    goods = [(x_sign * point.retained.mean, y_sign * point.new.mean) for point in placed]
    best = [not any(_dominates(other, good) for other in goods) for good in goods]
    points = []
    for point, good, on_frontier in zip(placed, goods, best, strict=True):
        ahead = [
            other.variant
            for other, theirs, first in zip(placed, goods, best, strict=True)
            if first and _dominates(theirs, good)
        ]
        points.append(replace(point, on_frontier=on_frontier, dominated_by=None if on_frontier else ahead[0]))
    return Frontier(retained, new, points)


def is_race(sheet: Sheet) -> bool:
    """Whether methods compete: two or more continual trainings of one parent."""
    starts = Counter(row.parent for row in sheet.rows if row.stage in ("cpt", "sft"))
    return max(starts.values(), default=0) > 1


def _dominates(other: tuple[float, float], good: tuple[float, float]) -> bool:
    return other != good and other[0] >= good[0] and other[1] >= good[1]


def _point(sheet: Sheet, row: Row, retained: str, new: str) -> Point | None:
    kept, learnt = score(row.metrics.get(retained)), score(row.metrics.get(new))
    if kept is None or learnt is None:
        return None
    origin = sheet.origin(row)
    return Point(
        variant=row.variant,
        method=row.method,
        retained=kept,
        new=learnt,
        kept=_kept(kept, score(origin.metrics.get(retained)), sheet.sign(retained)) if origin else None,
        of_full_gain=_of_full_gain(sheet, origin, learnt, new) if origin else None,
        trainable_parameters=row.trainable_parameters,
        seconds=row.seconds,
        peak_memory_bytes=row.peak_memory_bytes,
    )


def _kept(now: Score, before: Score | None, sign: int) -> float | None:
    if before is None:
        return None
    part, whole = (now.mean, before.mean) if sign > 0 else (before.mean, now.mean)
    return part / whole if whole else None


def _of_full_gain(sheet: Sheet, origin: Row, learnt: Score, new: str) -> float | None:
    """Share of the largest gain that a row of the method full made from the same origin."""
    before = score(origin.metrics.get(new))
    if before is None:
        return None
    sign = sheet.sign(new)
    siblings = (row for row in sheet.rows if row.method == "full" and row.parent == origin.variant)
    gains = [sign * (full.mean - before.mean) for row in siblings if (full := score(row.metrics.get(new)))]
    most = max(gains, default=0.0)
    return sign * (learnt.mean - before.mean) / most if most > 0 else None
