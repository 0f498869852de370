"""The figure of the frontier: what is marked, joined and named."""

import pytest

from workbench.sheet.frontier import frontiers


@pytest.fixture
def figure(race_drawings):
    return next(drawing for drawing in race_drawings if drawing.section == "frontier")


def test_every_method_is_named_and_sweeps_by_their_ends(race, figure):
    texts = {text.get_text() for text in figure.figure.axes[0].texts}
    methods = {row.variant for row in race.rows if row.method != "merge"}
    assert methods | {"merge-linear-0.2", "merge-slerp-0.2"} <= texts
    assert "merge-linear-0.5" not in texts


def test_sweeps_are_joined_from_their_parent_one_line_an_algorithm(race, figure):
    start = race.row("cpt-full").metrics["retained.facts.acc"].seeds
    sweeps = [line for line in figure.figure.axes[0].lines if line.get_alpha() == 0.5]
    assert len(sweeps) == 2
    for line in sweeps:
        assert len(line.get_xdata()) == 4
        assert line.get_xdata()[0] == pytest.approx(sum(start) / 3)


def test_the_stair_passes_through_the_best_rows_and_no_row_lies_beyond_it(race, figure):
    (stair,) = (line for line in figure.figure.axes[0].lines if line.get_drawstyle() == "steps-pre")
    x, y = stair.get_xdata(), stair.get_ydata()
    best = [point for point in frontiers(race)[0].rows if point.on_frontier]
    assert {(point.retained.mean, point.new.mean) for point in best} <= set(zip(x, y, strict=True))
    assert list(x) == sorted(x)
    assert list(y) == sorted(y, reverse=True)
    assert "no row beats cpt-full" in figure.caption


def test_each_seed_is_a_dot_and_bars_stay_within_shares(race, figure):
    axes = figure.figure.axes[0]
    dots = sum(
        len(found.get_offsets())
        for found in axes.collections
        if hasattr(found, "get_sizes") and len(found.get_offsets()) == 3
    )
    assert dots == 3 * len(race.rows)
    ends = [
        end
        for bars in axes.containers
        for lines in bars[2]
        for part in lines.get_segments()
        for end in part.ravel()
    ]
    assert min(ends) >= 0
    assert max(ends) <= 1 + 1e-12


def test_one_seed_is_drawn_with_the_intervals_of_its_items(drawings):
    caption = next(drawing.caption for drawing in drawings if drawing.section == "frontier")
    assert "seeds" not in caption
    assert "Small marks are quantized models" in caption
