"""What so many preference triplets give: attacks, and what must stand beside them, over the data size.

Source: Egida, arXiv 2502.13603, which reports one size, about 2,000; the curve is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from workbench.sheet import ledger, safety
from workbench.sheet.canvas import FAINT, Drawing, Look
from workbench.sheet.safety_plot import HOLLOW, finish, mark, short
from workbench.sheet.sheet import Row, Sheet


def draw(sheet: Sheet, looks: dict[str, Look]) -> list[Drawing]:
    """The figure, where a method was trained on several numbers of triplets."""
    lines = _lines(sheet)
    if not any(len(members) > 1 for members in lines.values()):
        return []
    keys = [safety.UNSEEN, safety.OVER_REFUSAL, safety.INCOHERENT, *ledger.retained(sheet)[:1]]
    every = [row for members in lines.values() for row in members]
    parents = [row for row in sheet.rows if row.variant in {each.parent for each in every}]
    figure = Figure(figsize=(9.2, 6.0), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, key in zip(panels, keys, strict=False):
        axes.set_title(short(key), loc="left", fontsize=10, fontweight="bold")
        for parent in parents:
            if (before := parent.metrics.get(key)) and before.value is not None:
                axes.axhline(before.value, color=FAINT, linewidth=0.9, zorder=0)
        for name, members in lines.items():
            _line(sheet, axes, name, members, key, looks)
        finish(sheet, axes, "y", key, [*every, *parents])
        axes.set_xscale("log")
        axes.set_xticks(sorted({_size(row) for row in every}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    for axes in panels[len(keys) - 2 : len(keys)]:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel("triplets")
    if len(lines) > 1:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False)
    caption = (
        "The first of the same triplets each, in the same tokens: fewer triplets are repeated more often. "
        f"Grey: before. Bars are 95 % intervals. {HOLLOW}"
    )
    return [Drawing("safety-sizes", "safety", "Safety by number of triplets", figure, caption)]


def _lines(sheet: Sheet) -> dict[str, list[Row]]:
    """Rows by method and origin, few triplets first."""
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in ledger.rows(sheet):
        if row.stage == "safety" and row.settings.get("size"):
            found.setdefault((row.method, row.parent), []).append(row)
    origins = {parent for _, parent in found}
    return {
        method if len(origins) == 1 else f"{method} from {parent}": sorted(members, key=_size)
        for (method, parent), members in found.items()
    }


def _size(row: Row) -> int:
    return int(row.settings["size"])


def _line(
    sheet: Sheet, axes: Axes, name: str, members: Sequence[Row], key: str, looks: dict[str, Look]
) -> None:
    look = looks[members[-1].variant]
    known = [(row, metric.value) for row in members if (metric := row.metrics.get(key))]
    told = [(row, value) for row, value in known if value is not None]
    axes.plot(
        [_size(row) for row, _ in told],
        [value for _, value in told],
        color=look.colour,
        linewidth=1.4,
        label=name,
    )
    for row, _ in told:
        mark(sheet, axes, row, key, (float(_size(row)), None), look)
