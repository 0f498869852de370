"""The mixture over training: the weight of each source, and the share of the batches that it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter

from workbench.sheet import labels, wording
from workbench.sheet.canvas import COLOURS, SIZE, Drawing, file_name, new_axes, set_scale
from workbench.sheet.sheet import Curve

_DOTS = 40  # realised shares in one figure, each of so many batches that their rounding is even


def draw(curves: Sequence[Curve]) -> list[Drawing]:
    """A figure for each training whose weights changed on the way."""
    found = []
    for curve in curves:
        points = [point for point in curve.points if "weights" in point]
        if any(point["weights"] != points[0]["weights"] for point in points):
            found.append(_figure(curve.variant, points))
    return found


def _figure(variant: str, points: list[dict[str, Any]]) -> Drawing:
    figure, axes = new_axes(f"Mixture of {variant}", "tokens of training", SIZE)
    tokens = [point["tokens"] for point in points]
    size = -(-len(points) // _DOTS)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    ends, every = [], []
    for index, source in enumerate(points[0]["weights"]):
        colour = COLOURS[index % len(COLOURS)]
        weights = [point["weights"][source] for point in points]
        axes.plot(tokens, weights, color=colour)
        axes.plot(
            [block[-1]["tokens"] for block in blocks],
            [_share(block, source) for block in blocks],
            color=colour,
            linestyle="",
            marker=".",
            markersize=3,
            alpha=0.6,
        )
        ends.append(labels.Label(source, tokens[-1], weights[-1], colour))
        every += weights
    set_scale(axes, "y", "share", every)
    axes.set_ylim(0.0, min(1.02, 1.15 * max(every)))
    axes.margins(x=0.02)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.count(value)))
    labels.at_the_end(figure, axes, ends)
    caption = "Lines are the weights, dots the shares that the batches had."
    return Drawing(file_name("mixture", variant), "training", f"Mixture of {variant}", figure, caption)


def _share(block: list[dict[str, Any]], source: str) -> float:
    """Share of a source in some batches."""
    drawn = sum(point["sources"][source] for point in block)
    return float(drawn / sum(sum(point["sources"].values()) for point in block))
