"""The update of SynE: more of what was forgotten, inside of each group."""

from __future__ import annotations

import math
from typing import Any

import pytest

from workbench.data.curricula.topics import update
from workbench.recipe.curricula import Topics

WEIGHTS = {"web": 0.2, "a": 0.2, "b": 0.2, "c": 0.4}
BEFORE = {"a": 2.0, "b": 2.0, "c": 2.0}


def section(**changes: Any) -> Topics:
    texts = {name: f"{name}-held-out" for name in "abc"}
    return Topics.model_validate({"kind": "topics", "every": 10, "texts": texts, **changes})


def test_the_first_measurement_changes_nothing() -> None:
    made = update(section(), 0, WEIGHTS, BEFORE, {})
    assert made.weights is None and made.memory == BEFORE


def test_agrees_with_the_equations() -> None:
    now = {"a": 2.4, "b": 1.9, "c": 2.0}
    made = update(section(step_size=0.5), 1, WEIGHTS, now, BEFORE)
    moved = {"a": 0.2 * 1.5, "b": 0.2 * (1 - 0.5 * 0.25), "c": 0.4}
    expected = {name: 0.8 * value / sum(moved.values()) for name, value in moved.items()}
    assert made.weights == pytest.approx({"web": 0.2, **expected})
    assert made.memory == now
    assert made.said["factors"] == pytest.approx({"a": 1.5, "b": 0.875, "c": 1.0})


def test_importance_damps_a_topic() -> None:
    now = {"a": 2.4, "b": 2.4, "c": 2.0}
    made = update(section(importance={"b": 0.0}), 1, WEIGHTS, now, BEFORE)
    assert made.said["factors"]["b"] == 1.0 and made.said["factors"]["a"] == 1.5


def test_groups_keep_their_sums() -> None:
    now = {"a": 2.5, "b": 1.0, "c": 3.0}
    made = update(section(groups=[["a", "b"], ["c"]]), 1, WEIGHTS, now, BEFORE)
    assert made.weights is not None
    assert made.weights["a"] + made.weights["b"] == pytest.approx(0.4)
    assert made.weights["c"] == pytest.approx(0.4) and made.weights["a"] > 0.2


def test_perplexities_weigh_hard_topics_more() -> None:
    before, now = {"a": 1.0, "b": 5.0, "c": 1.0}, {"a": 1.1, "b": 5.1, "c": 1.0}
    losses = update(section(), 1, WEIGHTS, now, before)
    perplexities = update(section(measure="perplexity"), 1, WEIGHTS, now, before)
    assert losses.said["factors"]["a"] == pytest.approx(losses.said["factors"]["b"])
    assert perplexities.said["differences"]["b"] == pytest.approx(math.exp(5.1) - math.exp(5.0))
    assert perplexities.said["factors"]["a"] < 1.02 < perplexities.said["factors"]["b"]


def test_nothing_changed_means_nothing_changes() -> None:
    assert update(section(), 3, WEIGHTS, BEFORE, BEFORE).weights == pytest.approx(WEIGHTS)


def test_no_topic_falls_below_the_floor() -> None:
    weights, memory = dict(WEIGHTS), {"a": 100.0, "b": 100.0, "c": 100.0}
    for turn in range(1, 60):
        now = {"a": memory["a"] + 1, "b": memory["b"] - 1, "c": memory["c"]}
        made = update(section(floor=0.03), turn, weights, now, memory)
        assert made.weights is not None
        weights, memory = made.weights, made.memory
    assert min(weights.values()) == pytest.approx(0.03) and sum(weights.values()) == pytest.approx(1)
