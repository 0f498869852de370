"""What all figures share: style, colours, axes, and how they become files.

Colours follow Okabe and Ito (2008), darkened where text needs it, so that readers with any colour
vision can tell them apart; one method keeps one colour and one marker through the whole report.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from workbench.sheet import wording
from workbench.sheet.sheet import Sheet
from workbench.sheet.statistics import Interval
from workbench.sheet.wording import Unit

INK, FAINT = "#1d2430", "#8b93a1"
COLOURS = (
    *("#0072b2", "#c8500a", "#00805c", "#a8508a", "#8a6d00", "#3d3d8f"),
    *("#6b7280", "#b0123f", "#3a97d4", "#6b4226", "#8a4fd8", "#5f8f00"),
)
MARKERS = "osD^vPX<>ph"  # not as many as colours, so that pairs of both repeat late
SIZE = (5.6, 3.7)  # inches; two stand side by side on a wide page
WIDE = (7.2, 4.6)
STYLE: Any = {  # matplotlib types the keys as literals
    "font.size": 10.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.0,
}


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files, the section of the report it belongs to, and what to know of it."""

    name: str  # letters, digits, dots, dashes and underscores
    section: str
    title: str
    figure: Figure
    caption: str = ""

    @cached_property
    def svg(self) -> str:
        """The figure as SVG with text as text; the same figure gives the same bytes."""
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    def png(self) -> bytes:
        """The figure as PNG, sharp on dense screens."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=200)
        return buffer.getvalue()


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str


def looks_of(sheet: Sheet) -> dict[str, Look]:
    """One look a variant, the same for all variants of one method; rows without a parent are ink.

    Where all trained rows are of one method, it tells nothing apart, and each has a look of its own.
    """
    made = [row for row in sheet.rows if row.parent is not None]
    alike = len({row.method for row in made if row.nominal_bits is None}) == 1
    kinds = {row.variant: row.variant if alike and row.nominal_bits is None else row.method for row in made}
    order = list(dict.fromkeys(kinds.values()))
    looks = {kind: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, kind in enumerate(order)}
    return {row.variant: looks[kinds[row.variant]] if row.parent else Look(INK, "o") for row in sheet.rows}


def new_axes(title: str, x_label: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """An empty figure with its title at the left; `size` in inches."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=12)
    axes.set_xlabel(x_label)
    return figure, axes


def set_scale(axes: Axes, axis: str, unit: Unit, values: Sequence[float]) -> None:
    """Percent for shares; logarithmic where other scores span more than a factor of ten."""
    chosen = getattr(axes, f"{axis}axis")
    if unit != "share" and min(values) > 0 and max(values) > 10 * min(values):
        getattr(axes, f"set_{axis}scale")("log")
        decades = math.log10(max(values) / min(values))
        ticks = (1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)
        chosen.set_major_locator(LogLocator(subs=ticks))
        chosen.set_minor_locator(NullLocator())
        chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    elif unit == "share":
        chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def bar(interval: Interval | None, value: float, unit: Unit) -> list[list[float]]:
    """Lengths below and above the value, as matplotlib wants them; those of shares end at 0 and 1."""
    if interval is None:
        return [[0.0], [0.0]]
    low, high = interval.low, interval.high
    if unit == "share":
        low, high = max(low, 0.0), min(high, 1.0)
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def file_name(*parts: str) -> str:
    """A plain file name, without its ending."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))


def title_of(metric: str) -> str:
    """The metric in words, with a capital."""
    text = wording.describe(metric)
    return text[0].upper() + text[1:]


def draw_chance(sheet: Sheet, axes: Axes, metric: str, side: Literal["left", "right"]) -> None:
    """Draw the score of guessing, where it is known."""
    known = next((row.metrics[metric] for row in sheet.rows if metric in row.metrics), None)
    if known is not None and known.chance is not None:
        axes.axhline(known.chance, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        where = axes.get_yaxis_transform()
        x = 0.01 if side == "left" else 0.99
        axes.text(x, known.chance, "chance", color=FAINT, fontsize=9, ha=side, va="bottom", transform=where)
