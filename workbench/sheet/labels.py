"""Labels that stand beside what they name, without covering each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

_LINE = 13.0  # points from one label to the next
_TIGHT_LINE = 10.5  # where there are many
_MANY = 6
_STEPS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # diagonals miss error bars
_SIDES = {1: "left", 0: "center", -1: "right"}


@dataclass(frozen=True)
class Label:
    """A text and the point in data coordinates that it names."""

    text: str
    x: float
    y: float
    colour: str


def at_the_end(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label to the right of the axes at the height of its point, pushed apart where needed."""
    if not labels:
        return
    many = len(labels) > _MANY
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    heights = [float(axes.transData.transform((label.x, label.y))[1]) / scale for label in labels]
    placed = spread(heights, _TIGHT_LINE if many else _LINE)
    for label, height, goal in zip(labels, heights, placed, strict=True):
        leader = {"arrowstyle": "-", "color": label.colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 1}
        axes.annotate(
            label.text,
            (1.0, label.y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(16 if many else 8, goal - height),
            textcoords="offset points",
            color=label.colour,
            va="center",
            fontsize=8 if many else None,
            fontweight="bold",
            arrowprops={**leader, "relpos": (0, 0.5)} if many else None,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights as a group so that neighbours are at least `gap` apart; order and centres are kept."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _top(groups[-2], heights, gap) + gap > _bottom(groups[-1], heights, gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(heights)
    for group in groups:
        for rank, index in enumerate(group):
            placed[index] = _bottom(group, heights, gap) + rank * gap
    return placed


def _bottom(group: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return sum(heights[i] for i in group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return _bottom(group, heights, gap) + gap * (len(group) - 1)


def beside(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label near its point, at the nearest place that covers no point and no other label.

    A label for which there is no such place is left out.
    """
    figure.draw_without_rendering()
    half = 4 * figure.dpi / 72
    taken = []
    for label in labels:
        x, y = axes.transData.transform((label.x, label.y))
        taken.append(Bbox.from_extents(x - half, y - half, x + half, y + half))
    for label in labels:
        places = ((reach, step) for reach in range(1, 7) for step in _STEPS)
        for reach, step in places:
            box = _write(figure, axes, label, reach, step, taken)
            if box is not None:
                taken.append(box)
                break


def _write(
    figure: Figure, axes: Axes, label: Label, reach: int, step: tuple[int, int], taken: Sequence[Bbox]
) -> Bbox | None:
    """Write a label if its box is free, and return the box; a leader joins it to its point from afar."""
    across, up = step
    written = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(7 * reach * across, 8 * reach * up),
        textcoords="offset points",
        color=label.colour,
        ha=_SIDES[across],
        va="center",
        fontsize=9,
        arrowprops={"arrowstyle": "-", "color": label.colour, "lw": 0.6, "shrinkB": 4} if reach > 1 else None,
    )
    written.set_in_layout(False)
    written.get_window_extent()  # moves the text to its place, but its own box would hold the leader too
    box = Text.get_window_extent(written)
    inside = figure.bbox.padded(-4)
    if not box.count_overlaps(taken) and inside.contains(*box.min) and inside.contains(*box.max):
        return box
    written.remove()
    return None
