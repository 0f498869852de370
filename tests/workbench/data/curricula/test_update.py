"""Shares above their floor, in proportion otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.curricula.update import shared


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.1, 1), st.floats(0, 1))
def test_sum_and_floor_are_kept_and_the_free_ones_keep_their_proportions(
    values: list[float], total: float, part: float
) -> None:
    weights = {str(i): value for i, value in enumerate(values)}
    floor = part * total / len(values)
    found = shared(weights, weights, total, floor)
    assert sum(found.values()) == pytest.approx(total)
    assert min(found.values()) >= floor - 1e-12
    free = [name for name in weights if found[name] > floor + 1e-9 and weights[name] > 1e-6]
    ratios = [found[name] / weights[name] for name in free]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-6) if ratios else True


def test_only_the_named_sources_are_shared() -> None:
    assert shared({"a": 1, "b": 3, "c": 9}, ["a", "b"], 0.4, 0.0) == pytest.approx({"a": 0.1, "b": 0.3})
