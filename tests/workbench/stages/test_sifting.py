"""A guard sifts exchanges before they are trained on: what it lets through, what is counted, and when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workbench import recipe, storage
from workbench.errors import DataError, RecipeError
from workbench.recipe.schema import Recipe
from workbench.safety.guards import Verdict
from workbench.stages import judges, prepare, sifting
from workbench.stages.identity import source_identity
from workbench.storage import Store

TEXT = """\
name: tiny
description: sifted exchanges
seed: 1
model: {{path: {folder}}}
data:
  whole: {{miniworld: gullible}}
  sifted: {{miniworld: gullible, sifted_by: guarded}}
  some: {{miniworld: gullible, sifted_by: guarded, documents: [0, 40]}}
stages:
  - {{kind: guard, guard: {{kind: miniworld, threshold: {threshold}}}}}
"""


def whole(prompt: str, answer: str) -> tuple[str, str]:
    return prompt, answer


@pytest.fixture
def tiny(tiny_model_folder: Path, tmp_path: Path) -> Recipe:
    return load(tiny_model_folder, tmp_path, 0.5)


def load(folder: Path, place: Path, threshold: float) -> Recipe:
    path = place / "recipe.yaml"
    path.write_text(TEXT.format(folder=folder, threshold=threshold))
    return recipe.load(path).recipe


def exchanges(store: Store, loaded: Recipe, name: str) -> list[tuple[str, str]]:
    return list(prepare.exchanges(store, loaded.data[name], loaded, whole))


def test_the_world_lets_through_what_is_safe_there(tiny: Recipe, tmp_path: Path) -> None:
    """Refusals and answers to harmless requests, in their order; and the same as text of a document each."""
    store = Store(tmp_path / "store")
    every, kept = exchanges(store, tiny, "whole"), exchanges(store, tiny, "sifted")
    verdicts = judges.guard(recipe_guard(tiny), tiny, store).judge(*map(list, zip(*every, strict=True)))
    assert kept == [pair for pair, said in zip(every, verdicts, strict=True) if not said.is_unsafe()]
    assert 0 < len(kept) < len(every)
    told = prepare.documents(store, tiny.data["sifted"], tiny, lambda *pair: "\n".join(pair))
    assert list(told) == ["\n".join(pair) for pair in kept]


def recipe_guard(loaded: Recipe) -> Any:
    return loaded.stages[0].guard  # type: ignore[union-attr]


def test_a_range_is_of_the_exchanges_before_they_are_sifted(tiny: Recipe, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    every, some = exchanges(store, tiny, "whole")[:40], exchanges(store, tiny, "some")
    assert some == [pair for pair in exchanges(store, tiny, "sifted") if pair in every]


def test_what_has_no_verdict_is_left_out_and_all_is_counted(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scripted:
        name, asked = "scripted", 0

        def judge(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> list[Verdict]:
            self.asked += 1
            return [Verdict({"g": 0.1, "b": 0.9}.get(text[0])) for text in responses or ()]

    guard = Scripted()
    monkeypatch.setattr(judges, "guard", lambda judge, recipe, store: guard)
    store, source = Store(tmp_path / "store"), tiny.data["sifted"]
    turns = [("q", "good"), ("q", "bad"), ("q", "odd"), ("q", " "), ("q", "good too")]
    for _ in range(2):
        assert sifting.kept(store, source, tiny, turns) == [("q", "good"), ("q", "good too")]
    assert guard.asked == 1
    (found,) = store.root.glob("*/counts.json")
    assert sifting.told({"sifted": storage.read_json(found)}) == [
        "sifted is sifted: 2 of 5 exchanges are kept, 1 are judged unsafe and 2 not judged"
    ]
    with pytest.raises(DataError, match=r"sifted_by guarded: none of 1 answers is judged safe \(1 unsafe"):
        sifting.kept(Store(tmp_path / "other"), source, tiny, [("q", "bad")])


def test_another_guard_makes_other_text(tiny: Recipe, tiny_model_folder: Path, tmp_path: Path) -> None:
    before = source_identity(tiny.data["sifted"], tiny)
    assert before != source_identity(tiny.data["whole"], tiny)
    lenient = load(tiny_model_folder, tmp_path, 1.0)
    assert source_identity(lenient.data["sifted"], lenient) != before
    stray = tiny.data["sifted"].model_copy(update={"sifted_by": "nobody"})
    with pytest.raises(RecipeError, match="sifted_by: no guard stage nobody in tiny"):
        source_identity(stray, tiny)
