"""Replay draws the share that it promises from the old text."""

from __future__ import annotations

import pytest

from workbench.recipe.methods import Replay
from workbench.retention import replay


def test_old_text_gets_its_ratio_and_the_weights_sum_to_one() -> None:
    weights = replay.mixture({"a": 0.75, "b": 0.25}, Replay(ratio=0.2, mixture={"old": 1.0}))
    assert weights == pytest.approx({"a": 0.6, "b": 0.2, "old": 0.2})
    assert sum(weights.values()) == pytest.approx(1)


def test_a_source_on_both_sides_gets_both_shares() -> None:
    assert replay.mixture({"a": 1.0}, Replay(ratio=0.3, mixture={"a": 1.0})) == pytest.approx({"a": 1.0})
