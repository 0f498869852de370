"""The update of online data mixing: EXP3 on training losses."""

from __future__ import annotations

import math

import pytest

from workbench.data.curricula.bandit import update
from workbench.recipe.curricula import Bandit

NOTHING = {"a": 0.0, "b": 0.0}


def test_agrees_with_the_equations() -> None:
    section = Bandit(kind="bandit", every=1, smoothing=0.6, floor=0.0)
    weights, measured, memory = {"a": 0.4, "b": 0.6}, {"a": 3.0, "b": 2.0}, {"a": 1.0, "b": 2.0}
    made = update(section, 9, weights, measured, memory)
    rewards = {"a": 0.6 + 0.4 * 3 / 0.4, "b": 1.2 + 0.4 * 2 / 0.6}
    before, now = (math.sqrt(math.log(2) / (2 * t)) for t in (8, 9))
    liked = {name: math.exp(before * reward) for name, reward in rewards.items()}
    policy = {name: (1 - 2 * now) * value / sum(liked.values()) + now for name, value in liked.items()}
    assert made.memory == pytest.approx(rewards)
    assert made.weights == pytest.approx(policy)


def test_the_first_update_explores_evenly() -> None:
    made = update(Bandit(kind="bandit", every=1), 1, {"a": 0.9, "b": 0.1}, {"a": 1.0, "b": 9.0}, NOTHING)
    assert made.weights == pytest.approx({"a": 0.5, "b": 0.5})


def test_a_source_that_keeps_a_high_loss_is_drawn_more_and_one_that_was_not_drawn_keeps_its_reward() -> None:
    section, weights, memory = Bandit(kind="bandit", every=1), {"old": 0.2, "a": 0.4, "b": 0.4}, NOTHING
    for turn in range(1, 200):
        made = update(section, turn, weights, {"a": 4.0, "b": 1.0}, memory)
        assert made.weights is not None
        weights, memory = made.weights, made.memory
    assert weights["old"] == 0.2 and weights["a"] > weights["b"] > 0.01
    assert update(section, 200, weights, {"a": 4.0}, memory).memory["b"] == memory["b"]
