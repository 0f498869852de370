"""The stability gap: how far a score falls below where it began, and how long until it is back.

Between two probes the curve is taken as straight, so crossings of the first level are exact for it.

Source: Guo et al., arXiv 2406.14833, who report depth, length and peak of the gap.
Letters: t tokens of training, s score, s_0 the score before training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from workbench.sheet import statistics
from workbench.sheet.sheet import Curve, Sheet
from workbench.sheet.statistics import Interval

SCHEMA = "workbench.stability/1"
_ASPECTS = ("retained.", "new.")


@dataclass(frozen=True)
class Gap:
    """What a curve loses against its first level.

    Attributes:
        depth: s_0 - min s; 0 where the curve never falls below s_0.
        length: tokens from the first fall below s_0 until s >= s_0 again; None where it never comes back.
        at_least: the length, or its lower bound: the tokens from the fall to the last probe.
        recovered: whether s >= s_0 again after the first fall, or there was none.
        area: integral of max(0, s_0 - s) over tokens.
        peak: highest score.
        peak_tokens: where it is reached first.
        last: score at the end; a curve may come back and fall again.
    """

    depth: float
    length: float | None
    at_least: float
    recovered: bool
    area: float
    peak: float
    peak_tokens: float
    last: float


@dataclass(frozen=True)
class Stability:
    """The gap of one probed metric while one variant was trained.

    Attributes:
        variant: what was trained.
        metric: the probed score.
        gap: of the curve, which is a mean where there are several seeds.
        depths: of the curve under each seed; empty where there is one.
        ci: 95 % interval of their mean (Student's t). A minimum of noisy scores lies below their level, so
            that a depth is above 0 without any gap too: compare depths under the same probes.
    """

    variant: str
    metric: str
    gap: Gap
    depths: list[float] = field(default_factory=list)
    ci: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of stability.json."""
        seeded = {"depths": self.depths, "depths_ci": self.ci and [self.ci.low, self.ci.high]}
        gap = asdict(self.gap)
        return {"variant": self.variant, "metric": self.metric, **gap, **(seeded if self.depths else {})}


def stability_gap(points: Sequence[tuple[float, float]]) -> Gap:
    """Measure the gap of one curve; higher scores are better.

    Args:
        points: (tokens, score) in rising order of tokens, the first before any training.

    Raises:
        ValueError: no points, or tokens that do not rise.
    """
    if not points or any(later <= earlier for (earlier, _), (later, _) in pairwise(points)):
        raise ValueError(f"a curve needs points at rising numbers of tokens; found {list(points)}")
    level, last = points[0][1], points[-1]
    peak_tokens, peak = max(points, key=lambda point: point[1])
    area, fall, back = 0.0, None, None
    for start, end in _pieces(points, level):
        depths = level - start[1], level - end[1]
        area += (end[0] - start[0]) * max(0.0, sum(depths)) / 2
        if fall is None and depths[1] > 0:
            fall = start[0]
        elif fall is not None and back is None and depths[1] <= 0:
            back = end[0]
    return Gap(
        depth=level - min(score for _, score in points),
        length=0.0 if fall is None else None if back is None else back - fall,
        at_least=0.0 if fall is None else (last[0] if back is None else back) - fall,
        recovered=fall is None or back is not None,
        area=area,
        peak=peak,
        peak_tokens=peak_tokens,
        last=last[1],
    )


def _pieces(
    points: Sequence[tuple[float, float]], level: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The straight pieces of the curve, cut where they cross the level."""
    for start, end in pairwise(points):
        if (start[1] - level) * (end[1] - level) < 0:
            share = (level - start[1]) / (end[1] - start[1])
            crossing = (start[0] + share * (end[0] - start[0]), level)
            yield start, crossing
            yield crossing, end
        else:
            yield start, end


def probed(points: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[float, float]]:
    """Points (tokens, score) of one probed metric."""
    found = [(point["tokens"], (point.get("probe") or {}).get(metric)) for point in points]
    return [(tokens, score) for tokens, score in found if score is not None]


def has_gap(sheet: Sheet, metric: str) -> bool:
    """Whether a gap can be told: a retained or new skill of which more is better."""
    measured = any(metric in row.metrics for row in sheet.rows)
    return measured and metric.startswith(_ASPECTS) and sheet.sign(metric) > 0


def gaps(sheet: Sheet, curves: Sequence[Curve]) -> list[Stability]:
    """The gap of every retained and new skill of every trained variant with a parent, by metric.

    Scores of which less is better have none; nor have curves that were not probed before training.
    """
    parents = {row.variant: row.parent for row in sheet.rows}
    trained = [curve for curve in curves if parents.get(curve.variant) is not None]
    probes = [point.get("probe") or {} for curve in trained for point in curve.points]
    keys = dict.fromkeys(key for probe in probes for key in probe)
    skills = [key for aspect in _ASPECTS for key in keys if key.startswith(aspect) and has_gap(sheet, key)]
    found = [_stability(curve, key) for key in skills for curve in trained]
    return [one for one in found if one is not None]


def _stability(curve: Curve, metric: str) -> Stability | None:
    points = probed(curve.points, metric)
    if not points or points[0][0] != 0:
        return None
    depths = [stability_gap(probed(seed, metric)).depth for seed in curve.seeds]
    ci = statistics.student(depths) if depths else None
    return Stability(curve.variant, metric, stability_gap(points), depths, ci)


def to_json(found: Sequence[Stability]) -> dict[str, Any]:
    """The record stability.json."""
    return {"schema": SCHEMA, "gaps": [one.to_json() for one in found]}
