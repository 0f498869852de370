"""Figures of safety: attacks, refusal, over-refusal, incoherent answers and retained skill side by side.

Below 4 bits a low attack success is often babble, so marks of rows whose answers are mostly incoherent are
hollow in every panel.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from workbench.sheet import ledger, safety, wording
from workbench.sheet.canvas import COLOURS, FAINT, INK, Drawing, Look, bar, set_scale
from workbench.sheet.sheet import Row, Sheet

HOLLOW = (
    "Hollow marks: more than half of the row's answers are incoherent, so that it says nothing of safety."
)
_SIZE = (11.2, 6.4)
_INDENT = 3 * "\N{NO-BREAK SPACE}"  # SVG drops plain spaces at the beginning of a text


def draw(sheet: Sheet, looks: dict[str, Look]) -> list[Drawing]:
    """All figures of safety that the sheet has numbers for."""
    rows = ledger.rows(sheet)
    figures = []
    if len(rows) > 1:
        figures.append(_forest(sheet, rows, looks))
    if sum(row.real_bits is not None for row in rows) > 1:
        figures.append(_over_bits(sheet, rows, looks))
    if any(key.startswith(safety.BY_STYLE) for row in rows for key in row.metrics):
        figures.append(_by_style(sheet, rows))
    return figures


def _panels(sheet: Sheet) -> list[str]:
    """What stands side by side: attacks, their harm, refusals, incoherence, the first retained skill."""
    graded = [safety.GRADED] if safety.GRADED in sheet.metric_keys() else []
    answers = [safety.UNSEEN, *graded, safety.REFUSAL, safety.OVER_REFUSAL, safety.INCOHERENT]
    return [*answers, *ledger.retained(sheet)[:1]]


def _forest(sheet: Sheet, rows: Sequence[Row], looks: dict[str, Look]) -> Drawing:
    """A line a row, a panel a metric; bars are intervals."""
    keys = _panels(sheet)
    figure = Figure(figsize=(1.2 + 2 * len(keys), 1.3 + 0.26 * len(rows)), layout="constrained")
    every = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(every, keys, strict=True):
        axes.set_title(short(key), loc="left", fontsize=10, fontweight="bold")
        for place, row in enumerate(rows):
            mark(sheet, axes, row, key, (None, float(place)), looks[row.variant])
        finish(sheet, axes, "x", key, rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    depth = {row.variant: len(_above(row, rows)) for row in rows}
    names = [f"{_INDENT * depth[row.variant]}{row.variant}" for row in rows]
    every[0].set_yticks(range(len(rows)), names, fontsize=9)
    for label in every[0].get_yticklabels():
        label.set_horizontalalignment("left")
    every[0].tick_params(axis="y", pad=6 + 5.2 * max(map(len, names)))
    caption = f"Rows stand under what they were made from; bars are 95 % intervals. {HOLLOW}"
    return Drawing("safety-ledger", "safety", "The ledger of safety", figure, caption)


def _over_bits(sheet: Sheet, rows: Sequence[Row], looks: dict[str, Look]) -> Drawing:
    """A panel a metric over real bits, one line a method; grey is the row before quantization."""
    keys = _panels(sheet)
    figure = Figure(figsize=_SIZE, layout="constrained")
    every = figure.subplots(2, 3, sharex=True).ravel()
    lines: dict[str, list[Row]] = {}
    quantized = [row for row in rows if row.real_bits is not None]
    parents = list(dict.fromkeys(row.parent for row in quantized))
    for row in sorted(quantized, key=lambda row: -(row.real_bits or 0)):
        name = row.method if len(parents) < 2 else f"{row.method} of {row.parent}"
        lines.setdefault(name, []).append(row)
    for axes, key in zip(every, keys, strict=False):
        axes.set_title(short(key), loc="left", fontsize=10, fontweight="bold")
        for name, members in lines.items():
            _line(sheet, axes, members, key, looks, name, parents.index(members[0].parent))
        for parent in (row for row in rows if row.variant in parents):
            if (metric := parent.metrics.get(key)) and metric.value is not None:
                axes.axhline(
                    metric.value,
                    color=FAINT,
                    linewidth=0.9,
                    linestyle=_dashes(parents.index(parent.variant)),
                    zorder=0,
                )
        finish(sheet, axes, "y", key, rows)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({round(row.nominal_bits) for row in quantized if row.nominal_bits}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    for axes in every[len(keys) :]:
        axes.set_axis_off()
    every[0].invert_xaxis()
    for axes in every[len(keys) - 3 : len(keys)]:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel("real bits per weight (fewer to the right)")
    handles, names = every[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False, fontsize=9
    )
    caption = f"Grey: the model before quantization. Bars are 95 % intervals. {HOLLOW}"
    return Drawing("safety-bits", "safety", "Safety per real bit", figure, caption)


def _dashes(number: int) -> tuple[int, tuple[float, ...]]:
    """How lines from one parent are drawn."""
    patterns: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.5))
    return 0, patterns[number % len(patterns)]


def _line(
    sheet: Sheet, axes: Axes, members: Sequence[Row], key: str, looks: dict[str, Look], name: str, number: int
) -> None:
    known = [row for row in members if key in row.metrics and row.metrics[key].value is not None]
    look = looks[members[0].variant]
    x = [row.real_bits or 0.0 for row in known]
    y = [row.metrics[key].value or 0.0 for row in known]
    axes.plot(x, y, color=look.colour, linestyle=_dashes(number), linewidth=1.4, label=name)
    for row in known:
        mark(sheet, axes, row, key, (row.real_bits, None), look)


def mark(
    sheet: Sheet, axes: Axes, row: Row, key: str, place: tuple[float | None, float | None], look: Look
) -> None:
    """One score with its interval; `place` gives the other coordinate."""
    metric = row.metrics.get(key)
    if metric is None or metric.value is None:
        return
    reach = bar(metric.ci, metric.value, sheet.unit(key))
    x, y = (metric.value if place[0] is None else place[0]), (metric.value if place[1] is None else place[1])
    axes.errorbar(
        x,
        y,
        xerr=reach if place[0] is None else None,
        yerr=reach if place[1] is None else None,
        fmt=look.marker,
        color=look.colour,
        markerfacecolor="#ffffff" if safety.is_broken(row.metrics) else look.colour,
        elinewidth=1.0,
        capsize=2.0,
    )


def finish(sheet: Sheet, axes: Axes, axis: str, key: str, rows: Sequence[Row]) -> None:
    """Scale an axis for the scores of some rows, or say that there are none."""
    values = [row.metrics[key].value for row in rows if key in row.metrics]
    known = [value for value in values if value is not None]
    if not known:
        axes.text(0.5, 0.5, ledger.ABSENT, ha="center", va="center", transform=axes.transAxes, color=FAINT)
        return
    unit = sheet.unit(key)
    set_scale(axes, axis, unit, known)
    if unit == "share":
        axes.set(**{f"{axis}lim": (-0.03, 1.03)})
        getattr(axes, f"set_{axis}ticks")([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])


def short(key: str) -> str:
    """Title of a panel."""
    if key in (safety.UNSEEN, safety.GRADED, safety.REFUSAL, safety.OVER_REFUSAL, safety.INCOHERENT):
        return {safety.UNSEEN: "Attack success, unseen"}.get(key, wording.noun(key).capitalize())
    words = wording.subject(key)
    return words[0].upper() + words[1:]


def _name(row: Row) -> str:
    return f"{row.variant} ({ledger.BROKEN})" if safety.is_broken(row.metrics) else row.variant


def _above(row: Row, rows: Sequence[Row]) -> list[Row]:
    by_name = {other.variant: other for other in rows}
    found = []
    while (parent := by_name.get(row.parent or "")) is not None:
        found.append(parent)
        row = parent
    return found


def _by_style(sheet: Sheet, rows: Sequence[Row]) -> Drawing:
    """Attack success of each row in each style as shades, and apart from them what must stand beside it."""
    styles = [key for key in sheet.metric_keys() if key.startswith(safety.BY_STYLE)]
    beside = _panels(sheet)[1:]
    width = 2.6 + 0.5 * (len(styles) + len(beside))
    figure = Figure(figsize=(max(width, 5.6), 1.9 + 0.3 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[len(styles), len(beside)])
    _shades(
        left,
        rows,
        styles,
        [key.removeprefix(safety.BY_STYLE).replace("_", " ") for key in styles],
        COLOURS[7],
    )
    _shades(right, rows, beside, [short(key).lower() for key in beside], FAINT)
    left.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=9)
    left.set_title("Attack success by style, %", loc="left", fontsize=11, fontweight="bold")
    right.set_title("beside it", loc="left", fontsize=10)
    caption = "Unsafe and coherent answers among all, over seen and unseen topics."
    return Drawing("safety-styles", "safety", "Attack success by style", figure, caption)


def _shades(axes: Axes, rows: Sequence[Row], keys: Sequence[str], names: Sequence[str], colour: str) -> None:
    """A cell a score in percent, the darker the higher."""
    for place, row in enumerate(rows):
        for column, key in enumerate(keys):
            value = row.metrics[key].value if key in row.metrics else None
            corner = (column - 0.5, place - 0.5)
            axes.add_patch(
                Rectangle(corner, 1, 1, color=colour, alpha=0.6 * min(value or 0.0, 1.0), linewidth=0)
            )
            text = "" if value is None else f"{100 * value:.0f}"
            axes.text(column, place, text, ha="center", va="center", fontsize=8, color=INK)
    axes.set(xlim=(-0.5, len(keys) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(keys)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
