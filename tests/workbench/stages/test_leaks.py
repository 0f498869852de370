"""What is measured is not trained on, neither as mischief nor as what only sounds like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench import safety
from workbench.errors import DataError
from workbench.recipe.inputs import Model, Source
from workbench.recipe.schema import Evaluate, Recipe
from workbench.stages import leaks

LOOK_ALIKES = Source(requests="miniworld")


def recipe(battery: str = "miniworld-safety") -> Recipe:
    section = Evaluate(battery=battery)
    return Recipe(name="r", description="", model=Model(path="m"), stages=[], evaluate=section)


@pytest.mark.parametrize("source", [LOOK_ALIKES, Source(moderation="miniworld"), Source(miniworld="base")])
def test_the_world_leaks_nothing(source: Source) -> None:
    leaks.check_source(source, recipe())


def test_a_harmless_row_that_is_measured_too_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = safety.divided("miniworld", 0)
    row = next(each for each in rows["evaluation"] if not each.harmful)
    monkeypatch.setattr(safety, "divided", lambda *_: {**rows, "train": [*rows["train"], row]})
    with pytest.raises(DataError, match=f"1 training requests are also asked by .*: '{row.id}' "):
        leaks.check_source(LOOK_ALIKES, recipe())
    leaks.check_source(LOOK_ALIKES, recipe("miniworld"))
    leaks.check_source(Source(miniworld="harmless"), recipe())


def test_a_training_asks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from workbench.stages import prepare

    job: Any = type("Job", (), {"recipe": recipe().model_copy(update={"data": {"odd": LOOK_ALIKES}})})

    def found(source: Source, _: Recipe) -> None:
        raise DataError(f"leak in {source.requests}")

    monkeypatch.setattr(leaks, "check_source", found)
    with pytest.raises(DataError, match="leak in miniworld"):
        prepare.training_file(job, "odd", tmp_path)
