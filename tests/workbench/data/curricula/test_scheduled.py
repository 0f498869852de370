"""Weights at the points, between them and after them."""

from __future__ import annotations

import pytest

from workbench.data.curricula.scheduled import weights
from workbench.recipe.curricula import Scheduled

FIRST = {"zh": 0.2, "en": 0.8, "synthetic": 0.0}
POINTS = [
    {"tokens": 100, "mixture": {"zh": 0.1, "en": 0.7, "synthetic": 0.2}},
    {"tokens": 300, "mixture": {"en": 1.0}},
]


def section(kind: str) -> Scheduled:
    return Scheduled.model_validate({"kind": kind, "points": POINTS})


def test_stages_hold_until_the_next_point() -> None:
    staged = section("staged")
    assert weights(staged, FIRST, 0) == weights(staged, FIRST, 99) == FIRST
    assert weights(staged, FIRST, 100) == weights(staged, FIRST, 299) == POINTS[0]["mixture"]
    assert weights(staged, FIRST, 300) == weights(staged, FIRST, 10**9) == {"zh": 0, "en": 1, "synthetic": 0}


def test_lines_join_the_points() -> None:
    linear = section("linear")
    assert weights(linear, FIRST, 0) == FIRST
    assert weights(linear, FIRST, 50) == pytest.approx({"zh": 0.15, "en": 0.75, "synthetic": 0.1})
    assert weights(linear, FIRST, 100) == pytest.approx(POINTS[0]["mixture"])
    assert weights(linear, FIRST, 250) == pytest.approx({"zh": 0.025, "en": 0.925, "synthetic": 0.05})
    assert weights(linear, FIRST, 10**9) == {"zh": 0, "en": 1, "synthetic": 0}
    assert all(
        sum(weights(linear, FIRST, tokens).values()) == pytest.approx(1) for tokens in range(0, 400, 7)
    )
