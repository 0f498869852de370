"""A figure where weights change, and none where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from workbench.sheet import Curve
from workbench.sheet.mixture_plot import draw


def points(step: float, count: int = 100) -> list[dict[str, Any]]:
    found = []
    for i in range(count):
        weights = {"old": 0.5 + step * i, "new": 0.5 - step * i}
        drawn = {name: round(8 * weight) for name, weight in weights.items()}
        found.append({"step": i, "tokens": i * 1000, "loss": 1.0, "weights": weights, "sources": drawn})
    return [{"step": 0, "tokens": 0, "probe": {}}, *found]


def test_lines_are_the_weights_and_dots_the_shares() -> None:
    (drawing,) = draw([Curve("topics", points(0.004))])
    lines = drawing.figure.axes[0].get_lines()
    weights, dots = lines[0].get_ydata(), lines[1].get_ydata()
    assert weights[0] == 0.5 and weights[-1] == pytest.approx(0.896)
    assert len(dots) <= 40 and dots[-1] == pytest.approx(0.875, abs=0.1)
    assert drawing.name == "mixture-topics" and drawing.section == "training"
    assert "old" in drawing.svg and "new" in drawing.svg


def test_constant_weights_need_no_figure() -> None:
    assert draw([Curve("static", points(0.0)), Curve("no weights", [{"tokens": 0, "loss": 1.0}])]) == []
