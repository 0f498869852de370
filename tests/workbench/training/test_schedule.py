"""The learning rate at the places where it turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.recipe.schema import Schedule
from workbench.training import learning_rate

SHARES = st.floats(0, 1)


@given(st.sampled_from(["constant", "cosine", "wsd"]), SHARES, SHARES, SHARES, st.integers(1, 300))
def test_stays_between_zero_and_the_peak(
    kind: str, warmup: float, decay: float, final: float, steps: int
) -> None:
    schedule = Schedule(kind=kind, warmup=warmup, decay=decay * (1 - warmup), final=final)
    rates = [learning_rate(step, steps, 2.0, schedule) for step in range(steps)]
    assert all(0 <= rate <= 2.0 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd"])
def test_warms_up_linearly_to_the_peak(kind: str) -> None:
    schedule = Schedule(kind=kind, warmup=0.1, final=0.25)
    rates = [learning_rate(step, 100, 1.0, schedule) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[-1] == pytest.approx(1.0 if kind == "constant" else 0.25)


def test_cosine_is_halfway_down_in_the_middle() -> None:
    assert learning_rate(59, 110, 1.0, Schedule(warmup=10 / 110, final=0.2)) == pytest.approx(0.6)


def test_wsd_is_flat_until_its_decay() -> None:
    schedule = Schedule(kind="wsd", warmup=0.1, decay=0.2, final=0.0)
    rates = [learning_rate(step, 100, 1.0, schedule) for step in range(100)]
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == pytest.approx([1 - (i + 1) / 20 for i in range(20)])


def test_a_step_outside_is_an_error() -> None:
    with pytest.raises(ValueError, match="outside"):
        learning_rate(10, 10, 1.0, Schedule())
