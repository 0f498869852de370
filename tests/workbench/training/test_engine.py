"""Sizes and settings that do not go together are refused before anything is built."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workbench.errors import RecipeError
from workbench.recipe.schema import Engine
from workbench.training import engine as engines
from workbench.training.objective import Objective


def test_micro_batches_fill_the_batch(toy: SimpleNamespace) -> None:
    assert engines.micro_batch_size(toy.make_stage(), 1) == 8
    assert engines.micro_batch_size(toy.make_stage(), 4) == 2
    assert engines.micro_batch_size(toy.make_stage(micro_batch_size=2), 2) == 2


@pytest.mark.parametrize(
    ("micro", "world", "message"), [(3, 1, r"use one of \[1, 2, 4, 8\]"), (None, 3, "multiple of 3")]
)
def test_batches_that_do_not_divide(
    toy: SimpleNamespace, micro: int | None, world: int, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        engines.micro_batch_size(toy.make_stage(micro_batch_size=micro), world)


@pytest.mark.parametrize(
    "settings", [{"offload": "optimizer"}, {"offload": "parameters", "zero_stage": 2}], ids=str
)
def test_offload_needs_its_stage(toy: SimpleNamespace, settings: dict[str, Any]) -> None:
    objective = Objective(toy.make_model(), None, autocast=False)
    with pytest.raises(RecipeError, match="needs zero_stage"):
        engines.build(objective, toy.make_stage(), Engine(**settings), 1)
