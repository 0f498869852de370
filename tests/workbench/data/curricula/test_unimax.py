"""As even as the caps allow."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workbench.data.curricula.unimax import weights
from workbench.errors import DataError


def test_small_sources_are_capped_and_the_others_share_the_rest_evenly() -> None:
    found = weights({"b": 1000, "a": 10, "c": 2000}, epochs=2, budget=520)
    assert found == pytest.approx({"b": 250 / 520, "a": 20 / 520, "c": 250 / 520})


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=9), st.floats(0.1, 20), st.floats(0.01, 1))
def test_nobody_is_read_too_often_and_only_capped_sources_get_less_than_others(
    sizes: list[int], epochs: float, share: float
) -> None:
    tokens = {str(i): size for i, size in enumerate(sizes)}
    budget = share * epochs * sum(sizes)
    assume(budget > 0)
    found = weights(tokens, epochs, budget)
    assert sum(found.values()) == pytest.approx(1)
    most = max(found.values())
    for name, weight in found.items():
        assert weight * budget <= epochs * tokens[name] * (1 + 1e-9)
        assert weight == pytest.approx(most) or weight * budget == pytest.approx(epochs * tokens[name])


def test_a_budget_that_the_sources_do_not_hold_is_refused() -> None:
    with pytest.raises(DataError, match=r"unimax: 2 passes over the sources are 20 tokens, but 21 are"):
        weights({"a": 10}, 2, 21)
