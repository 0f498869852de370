"""The figures: lines are labelled where they end, bars are 95 % intervals, and no ink is spent twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from workbench.sheet import (
    frontier_plot,
    labels,
    mixture_plot,
    safety,
    safety_plot,
    size_plot,
    stability,
    wording,
)
from workbench.sheet.canvas import (
    FAINT,
    STYLE,
    Drawing,
    Look,
    bar,
    draw_chance,
    file_name,
    looks_of,
    new_axes,
    set_scale,
    title_of,
)
from workbench.sheet.frontier import frontiers
from workbench.sheet.sheet import Curve, Row, Sheet
from workbench.sheet.wording import Unit

_MANY = 5  # curves in one figure from which on they are drawn thin


def drawings(sheet: Sheet, curves: Sequence[Curve]) -> list[Drawing]:
    """All figures that the sheet has numbers for."""
    looks = looks_of(sheet)
    with matplotlib.rc_context(STYLE):
        planes = (frontier_plot.draw(sheet, found, looks) for found in frontiers(sheet))
        return [
            *_training(sheet, curves, looks),
            *mixture_plot.draw(curves),
            *planes,
            *safety_plot.draw(sheet, looks),
            *size_plot.draw(sheet, looks),
            *_squeezes(sheet, looks),
        ]


def _training(sheet: Sheet, curves: Sequence[Curve], looks: dict[str, Look]) -> list[Drawing]:
    """Learning and forgetting over training: a figure for each probe, then the loss."""
    parents = {row.variant: row.parent for row in sheet.rows}
    known = [curve for curve in curves if curve.variant in parents]
    shown = [curve for curve in known if parents[curve.variant] is not None] or known
    points = [point for curve in shown for point in curve.points]
    probes = dict.fromkeys(key for point in points for key in point.get("probe") or {})
    order = {"new": 0, "retained": 1, "safety": 2, "language": 3}
    found = []
    told = [key for key in probes if not wording.repeats(key, probes)]
    for key in sorted(told, key=lambda key: order.get(key.split(".")[0], 4)):
        series = _series(shown, lambda point, key=key: (point.get("probe") or {}).get(key))  # type: ignore[misc]
        found.append(_curve(sheet, key, series, looks))
    loss = _series(shown, lambda point: point.get("loss"))
    if loss:
        found.append(_curve(sheet, None, loss, looks))
    return found


def _series(
    curves: Sequence[Curve], value: Callable[[dict[str, Any]], float | None]
) -> dict[str, list[tuple[float, float]]]:
    """Points (tokens, value) of each variant that has any."""
    series: dict[str, list[tuple[float, float]]] = {}
    for curve in curves:
        for point in curve.points:
            if (found := value(point)) is not None:
                series.setdefault(curve.variant, []).append((point["tokens"], found))
    return series


def _curve(
    sheet: Sheet, metric: str | None, series: dict[str, list[tuple[float, float]]], looks: dict[str, Look]
) -> Drawing:
    """One probe, or the loss where no metric is named, of each variant over its training."""
    title = title_of(metric) if metric else "Training loss"
    unit: Unit = sheet.unit(metric) if metric else "ratio"
    figure, axes = new_axes(title, "tokens of training")
    ends = []
    many = len(series) > _MANY
    for variant, points in series.items():
        look = looks[variant]
        marker = look.marker if len(points) <= 40 else None
        axes.plot(
            *zip(*points, strict=True),
            color=look.colour,
            marker=marker,
            markersize=2.5 if many else 3.5,
            linewidth=1.0 if many else STYLE["lines.linewidth"],
        )
        ends.append(labels.Label(variant, points[-1][0], points[-1][1], look.colour))
    caption = "" if metric else "In nats per token, each on its own mixture, so levels are not comparable."
    if metric and stability.has_gap(sheet, metric):
        _shade_gaps(axes, series, looks)
        caption = "The thin level is the score before training; what a curve loses below it is shaded."
    values = [value for points in series.values() for _, value in points]
    set_scale(axes, "y", unit, values)
    if unit == "share":
        axes.set_ylim(min(0.0, *values), 1.02)
    if metric:
        draw_chance(sheet, axes, metric, "right")
    axes.margins(x=0.02)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.count(value)))
    labels.at_the_end(figure, axes, ends)
    return Drawing(file_name("training", metric or "loss"), "training", title, figure, caption)


def _shade_gaps(axes: Axes, series: dict[str, list[tuple[float, float]]], looks: dict[str, Look]) -> None:
    """Shade what each curve loses below the level at which it began."""
    alpha = 0.12 if len(series) <= _MANY else 0.04
    for level in dict.fromkeys(points[0][1] for points in series.values()):
        axes.axhline(level, color=FAINT, linewidth=0.8, zorder=0)
    for variant, points in series.items():
        tokens, scores = zip(*points, strict=True)
        below = [score < points[0][1] for score in scores]
        colour = looks[variant].colour
        axes.fill_between(
            tokens, scores, points[0][1], below, interpolate=True, color=colour, alpha=alpha, linewidth=0
        )


def _squeezes(sheet: Sheet, looks: dict[str, Look]) -> list[Drawing]:
    """Every metric over real bits, one line a method; not bits per byte where perplexity says the same.

    What judged answers say has figures of its own, where it stands together.
    """
    quantized = [row for row in sheet.rows if row.real_bits is not None]
    every = [key for key in sheet.metric_keys() if sum(key in row.metrics for row in quantized) > 1]
    keys = [key for key in every if not wording.repeats(key, every) and not safety.of_answers(key)]
    return [_squeeze(sheet, key, quantized, looks) for key in keys]


def _squeeze(sheet: Sheet, key: str, quantized: Sequence[Row], looks: dict[str, Look]) -> Drawing:
    figure, axes = new_axes(title_of(key), "real bits per weight (fewer to the right)")
    rows = [row for row in quantized if key in row.metrics and row.metrics[key].value is not None]
    lines: dict[tuple[str | None, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: -(row.real_bits or 0)):
        lines.setdefault((row.parent, row.method), []).append(row)
    there = {row.variant for row in sheet.rows}
    parents = [parent for parent in dict.fromkeys(row.parent for row in rows) if parent in there]
    ends, values = [], []
    for (parent, method), members in lines.items():
        x = [row.real_bits or 0.0 for row in members]
        scores = [row.metrics[key] for row in members]
        y = [score.value or 0.0 for score in scores]
        bars = [bar(score.ci, value, sheet.unit(key)) for score, value in zip(scores, y, strict=True)]
        bounds = [[bar[0][0] for bar in bars], [bar[1][0] for bar in bars]]
        look = looks[members[-1].variant]
        marker = f"{look.marker}-"
        axes.errorbar(x, y, yerr=bounds, color=look.colour, fmt=marker, elinewidth=1.0, capsize=2.5)
        name = method if len(parents) < 2 else f"{method} of {parent}"
        ends.append(labels.Label(name, x[-1], y[-1], look.colour))
        values += y
    for parent in parents:
        for value in _reference(axes, sheet.row(parent), key):
            values.append(value)
            ends.append(labels.Label(parent, 0, value, FAINT))
    set_scale(axes, "y", sheet.unit(key), values or [1.0])
    draw_chance(sheet, axes, key, "left")
    axes.set_xscale("log", base=2)
    axes.invert_xaxis()
    axes.set_xticks(sorted({round(row.nominal_bits) for row in rows if row.nominal_bits}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    labels.at_the_end(figure, axes, ends)
    return Drawing(file_name("bits", key), "bits", f"{title_of(key)} over real bits", figure)


def _reference(axes: Axes, parent: Row, key: str) -> list[float]:
    """Draw a band for the interval of the model before quantization, and give its score if it has one."""
    metric = parent.metrics.get(key)
    if metric is None or metric.value is None:
        return []
    if metric.ci:
        axes.axhspan(metric.ci.low, metric.ci.high, color=FAINT, alpha=0.18, linewidth=0, zorder=0)
    axes.axhline(metric.value, color=FAINT, linewidth=0.8, zorder=0)
    return [metric.value]
