"""The learning rate at the places where it turns."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.recipe.training import Schedule
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


@pytest.mark.parametrize(
    ("shape", "half"),
    [("linear", 0.6), ("cosine", 0.6), ("sqrt", 1 - 0.8 * math.sqrt(0.5)), ("exponential", math.sqrt(0.2))],
)
def test_wsd_falls_in_four_shapes(shape: str, half: float) -> None:
    schedule = Schedule(kind="wsd", warmup=0.1, decay=0.2, final=0.2, shape=shape)
    rates = [learning_rate(step, 100, 1.0, schedule) for step in range(100)]
    assert set(rates[10:80]) == {1.0}
    assert rates[89] == pytest.approx(half) and rates[-1] == pytest.approx(0.2)
    assert rates[79:] == sorted(rates[79:], reverse=True)


def test_infinite_cools_to_a_plateau_and_falls_exponentially_at_the_end() -> None:
    schedule = Schedule(kind="infinite", warmup=0.1, cooldown=0.3, plateau=0.5, decay=0.2, final=0.02)
    rates = [learning_rate(step, 100, 2.0, schedule) for step in range(100)]
    assert rates[9] == 2.0 and rates[24] == pytest.approx(1.5)  # halfway down a cosine
    assert rates[39:80] == pytest.approx([1.0] * 41)
    assert rates[89] == pytest.approx(2 * math.sqrt(0.5 * 0.02)) and rates[-1] == pytest.approx(0.04)


def test_the_plateau_does_not_depend_on_how_long_the_stage_is() -> None:
    short = Schedule(kind="infinite", warmup=0.1, cooldown=0.2, decay=0.0)
    long = Schedule(kind="infinite", warmup=0.05, cooldown=0.1, decay=0.0)
    assert [learning_rate(step, 100, 1.0, short) for step in range(100)] == pytest.approx(
        [learning_rate(step, 200, 1.0, long) for step in range(100)]
    )


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd", "infinite"])
@pytest.mark.parametrize("start", [0.1, 3.0])
def test_rewarms_from_where_the_last_training_ended(kind: str, start: float) -> None:
    schedule = Schedule(kind=kind, warmup=0.1).model_copy(update={"start": start})
    rates = [learning_rate(step, 100, 2.0, schedule) for step in range(10)]
    assert rates == pytest.approx([2 * (start + (1 - start) * (i + 1) / 10) for i in range(10)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "infinite", "warmup": 0.5, "cooldown": 0.5, "decay": 0.1}, "at most 1 together"),
        ({"kind": "infinite", "final": 0.0}, "never reaches 0"),
        ({"kind": "wsd", "shape": "exponential", "final": 0.0}, "never reaches 0"),
        ({"kind": "infinite", "plateau": 0.2, "final": 0.3}, "final 0.3 is above the plateau 0.2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule.model_validate(settings)


def test_a_step_outside_is_an_error() -> None:
    with pytest.raises(ValueError, match="outside"):
        learning_rate(10, 10, 1.0, Schedule())
