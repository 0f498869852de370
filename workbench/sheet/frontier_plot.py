"""The figure of the frontier: new skill against retained skill, the best rows up and to the right."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from workbench.sheet import labels, wording
from workbench.sheet.canvas import FAINT, WIDE, Drawing, Look, bar, file_name, new_axes, set_scale
from workbench.sheet.frontier import Frontier, score
from workbench.sheet.sheet import Row, Sheet

_TALL = (WIDE[0], 5.4)
_MANY = 8  # points from which on the figure is taller and the bars are fainter
_TITLE = "Learning against forgetting"


def draw(sheet: Sheet, frontier: Frontier, looks: dict[str, Look]) -> Drawing:
    """All rows with both scores; the frontier of those that are not quantized stands behind."""
    x_key, y_key = frontier.retained, frontier.new
    places = _places(sheet, frontier)
    many = len(places) > _MANY
    figure, axes = new_axes(_TITLE, wording.describe(x_key), _TALL if many else WIDE)
    axes.set_ylabel(wording.describe(y_key))
    for variant in places:
        _mark(sheet, axes, frontier, sheet.row(variant), looks[variant], faint=many)
    paths = _paths(sheet, places)
    for names in paths:
        line = [places[name] for name in names]
        axes.plot(*zip(*line, strict=True), color=looks[names[-1]].colour, linewidth=0.9, alpha=0.5)
    set_scale(axes, "x", sheet.unit(x_key), [x for x, _ in places.values()])
    set_scale(axes, "y", sheet.unit(y_key), [y for _, y in places.values()])
    axes.margins(0.08 if many else 0.12)
    if sheet.unit(x_key) == sheet.unit(y_key) == "share":
        axes.set(xlim=(axes.get_xlim()[0], min(1.02, axes.get_xlim()[1])))
        axes.set(ylim=(axes.get_ylim()[0], min(1.02, axes.get_ylim()[1])))
    if sheet.sign(x_key) < 0:
        axes.invert_xaxis()
    if sheet.sign(y_key) < 0:
        axes.invert_yaxis()
    _staircase(sheet, axes, frontier)
    labels.beside(figure, axes, _labels(sheet, frontier, places, paths, looks))
    name = file_name("frontier", y_key, x_key)
    return Drawing(name, "frontier", _TITLE, figure, _caption(sheet, frontier, places))


def _places(sheet: Sheet, frontier: Frontier) -> dict[str, tuple[float, float]]:
    """Where each row lies, quantized ones included."""
    found = {}
    for row in sheet.rows:
        x, y = score(row.metrics.get(frontier.retained)), score(row.metrics.get(frontier.new))
        if x is not None and y is not None:
            found[row.variant] = (x.mean, y.mean)
    return found


def _mark(sheet: Sheet, axes: Axes, frontier: Frontier, row: Row, look: Look, *, faint: bool) -> None:
    """One row: its mark, its bars, and a small dot for each seed."""
    x, y = score(row.metrics[frontier.retained]), score(row.metrics[frontier.new])
    assert x and y
    swept = row.nominal_bits is not None or _is_sweep(row)
    bars = axes.errorbar(
        x.mean,
        y.mean,
        xerr=bar(x.ci, x.mean, sheet.unit(frontier.retained)),
        yerr=bar(y.ci, y.mean, sheet.unit(frontier.new)),
        fmt=look.marker,
        markersize=4 if swept else 8,
        color=look.colour,
        elinewidth=0.8,
        alpha=0.9,
    )
    for lines in bars[2] if faint else ():
        lines.set_alpha(0.35)
    if len(x.seeds) == len(y.seeds):
        axes.scatter(x.seeds, y.seeds, s=6, color=look.colour, alpha=0.35, linewidths=0)


def _staircase(sheet: Sheet, axes: Axes, frontier: Frontier) -> None:
    """The edge of what the best rows dominate, from end to end of the axes."""
    best = [point for point in frontier.rows if point.on_frontier]
    if len(frontier.rows) < 2:
        return
    best.sort(key=lambda point: sheet.sign(frontier.retained) * point.retained.mean)
    (left, _), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    x = [left, *(point.retained.mean for point in best), best[-1].retained.mean]
    y = [best[0].new.mean, *(point.new.mean for point in best), bottom]
    limits = axes.get_xlim(), axes.get_ylim()
    axes.plot(x, y, drawstyle="steps-pre", color=FAINT, linewidth=1.2, linestyle=(0, (1, 1.5)), zorder=0)
    axes.set(xlim=limits[0], ylim=limits[1])


def _is_sweep(row: Row) -> bool:
    return row.method == "merge" and {"algorithm", "weight"} <= set(row.settings)


def _paths(sheet: Sheet, shown: dict[str, tuple[float, float]]) -> list[list[str]]:
    """Fan-outs, each beginning with its parent: many bits to few, large merging weights to small."""
    paths: dict[tuple[object, ...], list[str]] = {}
    swept = [row for row in sheet.rows if row.variant in shown and (row.nominal_bits or _is_sweep(row))]
    for row in sorted(swept, key=lambda row: -(row.nominal_bits or row.settings.get("weight", 0))):
        start = [row.parent] if row.parent in shown and row.parent else []
        paths.setdefault((row.parent, row.method, row.settings.get("algorithm")), start).append(row.variant)
    return list(paths.values())


def _labels(
    sheet: Sheet,
    frontier: Frontier,
    places: dict[str, tuple[float, float]],
    paths: Sequence[Sequence[str]],
    looks: dict[str, Look],
) -> list[labels.Label]:
    """Whole names; within a merging sweep only what is on the frontier, by algorithm and weight."""
    ends = {path[-1] for path in paths}
    found = []
    for variant, (x, y) in places.items():
        row, point = sheet.row(variant), frontier.point(variant)
        text = variant
        if _is_sweep(row) and variant not in ends:
            text = "{algorithm} {weight}".format(**row.settings) if point and point.on_frontier else ""
        found.append(labels.Label(text, x, y, looks[variant].colour))
    return found


def _caption(sheet: Sheet, frontier: Frontier, places: dict[str, tuple[float, float]]) -> str:
    rows = [sheet.row(variant) for variant in places]
    parts = []
    seeds = max(len(point.new.seeds) for point in frontier.rows)
    if seeds > 1:
        parts.append(
            f"Marks are means over {seeds} seeds, the faint dots; bars are 95 % intervals of the mean."
        )
    else:
        parts.append("Bars are 95 % intervals.")
    best = [point.variant for point in frontier.rows if point.on_frontier]
    if len(frontier.rows) > 1:
        parts.append(f"The dotted line is the frontier: no row beats {wording.listed(best)} in both scores.")
    if any(row.nominal_bits for row in rows):
        parts.append("Small marks are quantized models, joined from many bits to few.")
    if any(map(_is_sweep, rows)):
        parts.append("Small joined marks are weights merged part of the way back, from much to little.")
    return " ".join(parts)
