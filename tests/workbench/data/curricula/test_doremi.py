"""The update of DoReMi: exponentiated excess loss, smoothed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from workbench.data.curricula.doremi import update
from workbench.recipe.curricula import DoReMi

REFERENCE = {"a": 2.0, "b": 2.0}


def section(**changes: Any) -> DoReMi:
    settings = {"kind": "doremi", "every": 1, "texts": {"a": "x", "b": "y"}, "reference": "base", **changes}
    return DoReMi.model_validate(settings)


def test_agrees_with_the_equations() -> None:
    made = update(
        section(step_size=0.7, smoothing=0.1), 1, {"a": 0.3, "b": 0.7}, {"a": 2.5, "b": 1.0}, REFERENCE
    )
    grown = {"a": 0.3 * math.exp(0.7 * 0.5), "b": 0.7}  # b is better than its reference: no excess
    total = sum(grown.values())
    assert made.weights == pytest.approx({k: 0.9 * v / total + 0.05 for k, v in grown.items()})
    assert made.memory == REFERENCE


def test_as_good_as_the_reference_means_only_smoothing() -> None:
    made = update(section(smoothing=0.0), 1, {"a": 0.3, "b": 0.7}, REFERENCE, REFERENCE)
    assert made.weights == pytest.approx({"a": 0.3, "b": 0.7})


def test_other_sources_keep_their_weight_and_huge_losses_do_not_overflow() -> None:
    made = update(section(floor=0.05), 1, {"web": 0.5, "a": 0.3, "b": 0.2}, {"a": 1e4, "b": 0.0}, REFERENCE)
    assert made.weights == pytest.approx({"web": 0.5, "a": 0.45, "b": 0.05})
