"""The data-size curve stands where a method has several numbers of triplets, and attacks never alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench.sheet import plots, safety, size_plot
from workbench.sheet.canvas import looks_of


def sized(sheet, **sizes):
    """The sheet with some rows as those of so many triplets."""
    rows = [
        replace(row, settings={"size": sizes[row.variant]}, method="dpo", parent="base", stage="safety")
        if row.variant in sizes
        else row
        for row in sheet.rows
    ]
    return replace(sheet, rows=rows)


def test_nothing_is_drawn_without_two_sizes(assistants):
    for sheet in (assistants, sized(assistants, dpo=25)):
        assert size_plot.draw(sheet, looks_of(sheet)) == []


def test_four_panels_with_a_mark_a_size_and_the_start_in_grey(assistants):
    sheet = sized(assistants, dpo=100, derta=25)
    (drawing,) = size_plot.draw(sheet, looks_of(sheet))
    panels = [axes for axes in drawing.figure.axes if axes.get_title(loc="left")]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == ["Attack success, unseen", "Over-refusal", "Incoherent answers", "Retained facts"]
    for axes, key in zip(panels, [safety.UNSEEN, safety.OVER_REFUSAL], strict=False):
        line = next(each for each in axes.lines if each.get_label() == "dpo")
        assert list(line.get_xdata()) == [25, 100]
        assert list(line.get_ydata()) == [sheet.row(name).metrics[key].value for name in ("derta", "dpo")]
        level = next(each for each in axes.lines if list(each.get_xdata()) == [0, 1])
        assert level.get_ydata()[0] == sheet.row("base").metrics[key].value
    assert "95 % intervals" in drawing.caption


@pytest.mark.parametrize(("sizes", "drawn"), [({"dpo": 100, "derta": 25}, True), ({}, False)])
def test_it_is_a_figure_of_the_report(assistants, sizes, drawn):
    names = [drawing.name for drawing in plots.drawings(sized(assistants, **sizes), [])]
    assert ("safety-sizes" in names) == drawn
