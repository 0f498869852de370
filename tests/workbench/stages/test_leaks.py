"""What is measured is not trained on, neither as mischief nor as what only sounds like it."""

from __future__ import annotations

from typing import Any

import pytest

from workbench import safety
from workbench.errors import DataError
from workbench.recipe.inputs import Model, Source
from workbench.recipe.safety import Safety
from workbench.recipe.schema import Evaluate, Recipe
from workbench.stages import leaks

LOOK_ALIKES = Source(requests="miniworld")
STAGE = {
    "kind": "safety",
    "methods": ["dpo"],
    "triplets": {"requests": "miniworld", "judge": {"kind": "miniworld"}},
    "mixture": {"harmless": 1.0},
    "tokens": 1e4,
    "batch_size": 4,
    "sequence_length": 64,
    "learning_rate": 1e-3,
}


def recipe(source: Source, battery: str = "miniworld-safety", **more: Any) -> Recipe:
    section = {"data": {"odd": source}, "evaluate": Evaluate(battery=battery), "stages": [], **more}
    return Recipe(name="r", description="", seed=1, model=Model(path="m"), **section)


def leaking(monkeypatch: pytest.MonkeyPatch, *, harmful: bool) -> str:
    """Let training see a request that is measured; gives its id."""
    rows = safety.divided("miniworld", 1)
    row = next(each for each in rows["evaluation"] if each.harmful == harmful)
    monkeypatch.setattr(safety, "divided", lambda *_: {**rows, "train": [*rows["train"], row]})
    return row.id


@pytest.mark.parametrize("source", [LOOK_ALIKES, Source(moderation="miniworld"), Source(miniworld="base")])
def test_the_world_leaks_nothing(source: Source) -> None:
    leaks.check(recipe(source, stages=[Safety.model_validate(STAGE)]))


def test_a_harmless_row_that_is_measured_too_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = leaking(monkeypatch, harmful=False)
    for source in (LOOK_ALIKES, Source(moderation="miniworld")):
        with pytest.raises(DataError, match=f"1 training requests are also asked by .*: '{name}' "):
            leaks.check(recipe(source))
    leaks.check(recipe(LOOK_ALIKES, battery="miniworld"))
    leaks.check(recipe(Source(miniworld="harmless")))


def test_a_harmful_row_is_named_where_something_trains_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    name = leaking(monkeypatch, harmful=True)
    for told in (
        recipe(Source(moderation="miniworld")),
        recipe(Source(miniworld="harmless"), stages=[STAGE]),
    ):
        with pytest.raises(DataError, match=f"1 training requests are also asked by .*: '{name}' "):
            leaks.check(told)
    leaks.check(recipe(LOOK_ALIKES))  # gives its harmless rows alone
