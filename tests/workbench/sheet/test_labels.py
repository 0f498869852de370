"""Labels beside lines and points."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from workbench.sheet import labels


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=12))
def test_spread_keeps_order_and_distance(heights):
    placed = labels.spread(heights, 13)
    ordered = [place for _, place in sorted(zip(heights, placed, strict=True))]
    assert all(upper - lower >= 13 - 1e-6 for lower, upper in pairwise(sorted(placed)))
    assert ordered == sorted(ordered)
    assert sum(placed) == pytest.approx(sum(heights), abs=1e-6)


def test_labels_that_have_room_do_not_move():
    assert labels.spread([0, 50, 100], 13) == [0, 50, 100]


def test_labels_of_near_points_do_not_overlap():
    figure = Figure()
    axes = figure.add_subplot()
    points = [labels.Label(f"variant-{i}", 0.5 + 0.001 * i, 0.5, "#000000") for i in range(8)]
    labels.beside(figure, axes, points)
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) == 8
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
