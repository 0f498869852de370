"""The figures: lines are labelled where they end, bars are 95 % intervals, and no ink is spent twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from workbench.sheet import labels, wording
from workbench.sheet.canvas import (
    FAINT,
    STYLE,
    WIDE,
    Drawing,
    Look,
    draw_chance,
    file_name,
    looks_of,
    new_axes,
    set_scale,
    title_of,
)
from workbench.sheet.sheet import Curve, Row, Sheet
from workbench.sheet.statistics import Interval
from workbench.sheet.wording import Unit


def drawings(sheet: Sheet, curves: Sequence[Curve]) -> list[Drawing]:
    """All figures that the sheet has numbers for."""
    looks = looks_of(sheet)
    with matplotlib.rc_context(STYLE):
        return [*_training(sheet, curves, looks), *_frontiers(sheet, looks), *_squeezes(sheet, looks)]


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
    for variant, points in series.items():
        look = looks[variant]
        marker = look.marker if len(points) <= 40 else None
        axes.plot(*zip(*points, strict=True), color=look.colour, marker=marker, markersize=3.5)
        ends.append(labels.Label(variant, points[-1][0], points[-1][1], look.colour))
    values = [value for points in series.values() for _, value in points]
    set_scale(axes, "y", unit, values)
    if unit == "share":
        axes.set_ylim(min(0.0, *values), 1.02)
    if metric:
        draw_chance(sheet, axes, metric, "right")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: labels.count(value)))
    labels.at_the_end(figure, axes, ends)
    caption = "" if metric else "In nats per token, each on its own mixture, so levels are not comparable."
    return Drawing(file_name("training", metric or "loss"), "training", title, figure, caption)


def _bar(interval: Interval | None, value: float) -> list[list[float]]:
    """Lengths below and above the value, as matplotlib wants them."""
    return [[value - interval.low], [interval.high - value]] if interval else [[0.0], [0.0]]


def _frontiers(sheet: Sheet, looks: dict[str, Look]) -> list[Drawing]:
    """New skill against retained skill, one figure for each pair of metrics."""
    keys = sheet.metric_keys()
    retained = [key for key in keys if key.startswith("retained.")]
    new = [key for key in keys if key.startswith("new.")]
    return [_frontier(sheet, x, y, looks) for x in retained for y in new]


def _frontier(sheet: Sheet, x_key: str, y_key: str, looks: dict[str, Look]) -> Drawing:
    figure, axes = new_axes("Learning against forgetting", wording.describe(x_key), WIDE)
    axes.set_ylabel(wording.describe(y_key))
    places: dict[str, tuple[float, float]] = {}
    points = []
    for row in sheet.rows:
        x, y = row.metrics.get(x_key), row.metrics.get(y_key)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        places[row.variant] = (x.value, y.value)
        look = looks[row.variant]
        axes.errorbar(
            x.value,
            y.value,
            xerr=_bar(x.ci, x.value),
            yerr=_bar(y.ci, y.value),
            fmt=look.marker,
            markersize=4 if row.nominal_bits else 8,
            color=look.colour,
            elinewidth=0.8,
            alpha=0.9,
        )
        points.append(labels.Label(row.variant, x.value, y.value, look.colour))
    for names in _paths(sheet, places).values():
        line = [places[name] for name in names]
        axes.plot(*zip(*line, strict=True), color=looks[names[-1]].colour, linewidth=0.9, alpha=0.5)
    set_scale(axes, "x", sheet.unit(x_key), [x for x, _ in places.values()] or [1.0])
    set_scale(axes, "y", sheet.unit(y_key), [y for _, y in places.values()] or [1.0])
    axes.margins(0.12)
    if sheet.unit(x_key) == sheet.unit(y_key) == "share":
        axes.set(xlim=(axes.get_xlim()[0], min(1.02, axes.get_xlim()[1])))
        axes.set(ylim=(axes.get_ylim()[0], min(1.02, axes.get_ylim()[1])))
    labels.beside(figure, axes, points)
    caption = "Small marks are quantized models, joined from many bits to few; bars are 95 % intervals."
    title = "Learning against forgetting"
    return Drawing(file_name("frontier", y_key, x_key), "frontier", title, figure, caption)


def _paths(sheet: Sheet, shown: dict[str, tuple[float, float]]) -> dict[tuple[str | None, str], list[str]]:
    """Quantized variants of one parent and method, from many bits to few, beginning with the parent."""
    paths: dict[tuple[str | None, str], list[str]] = {}
    for row in sorted(sheet.rows, key=lambda row: -(row.nominal_bits or 0)):
        if row.nominal_bits and row.variant in shown:
            start = [row.parent] if row.parent in shown and row.parent else []
            paths.setdefault((row.parent, row.method), start).append(row.variant)
    return paths


def _squeezes(sheet: Sheet, looks: dict[str, Look]) -> list[Drawing]:
    """Every metric over real bits, one line a method; not bits per byte where perplexity says the same."""
    quantized = [row for row in sheet.rows if row.real_bits is not None]
    every = [key for key in sheet.metric_keys() if sum(key in row.metrics for row in quantized) > 1]
    keys = [key for key in every if not wording.repeats(key, every)]
    return [_squeeze(sheet, key, quantized, looks) for key in keys]


def _squeeze(sheet: Sheet, key: str, quantized: Sequence[Row], looks: dict[str, Look]) -> Drawing:
    figure, axes = new_axes(title_of(key), "real bits per weight (fewer to the right)")
    rows = [row for row in quantized if key in row.metrics and row.metrics[key].value is not None]
    lines: dict[tuple[str | None, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: -(row.real_bits or 0)):
        lines.setdefault((row.parent, row.method), []).append(row)
    parents = list(dict.fromkeys(row.parent for row in rows if row.parent))
    ends, values = [], []
    for (parent, method), members in lines.items():
        x = [row.real_bits or 0.0 for row in members]
        scores = [row.metrics[key] for row in members]
        y = [score.value or 0.0 for score in scores]
        bars = [_bar(score.ci, value) for score, value in zip(scores, y, strict=True)]
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
    axes.set_xticks(sorted({row.nominal_bits for row in rows if row.nominal_bits}))
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
