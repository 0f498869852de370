"""Small runs differ from the stage in their length and their share of old text, and measure on other text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from workbench import recipe
from workbench.errors import DataError, RecipeError, RunError
from workbench.recipe.schema import Recipe
from workbench.run import surrogate
from workbench.run.surrogate import Surrogates
from workbench.stages import prepare
from workbench.storage import Store

RECIPE = """\
name: small
description: a probe
seed: 3
model: {{path: {model}}}
data:
  old: {{miniworld: base, documents: [50, 400]}}
  new: {{miniworld: new, documents: [0, 400]}}
  one: {{path: {one}, document: file}}
stages:
  - {{kind: cpt, methods: [replay, lora], mixture: {{new: 1.0}},
     replay: {{ratio: 0.5, mixture: {{old: 1.0}}}}, tokens: 65536,
     batch_size: 8, sequence_length: 32, learning_rate: 1e-2, checkpoint_every: 2}}
"""


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Small runs take four steps, and few windows are held out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surrogate, "LEAST_STEPS", 4)
        patch.setattr(surrogate, "WINDOWS", 12)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests here: what one has made, the next one finds."""
    return Store(tmp_path_factory.mktemp("runs") / ".store")


@pytest.fixture
def load(tiny_model_folder: Path, tmp_path: Path):
    """The recipe, with overrides."""
    (tmp_path / "one.txt").write_text("only one document\n\nof two paragraphs\n")
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(model=tiny_model_folder, one=tmp_path / "one.txt"))

    def _load(*overrides: str) -> Recipe:
        return recipe.load(path, overrides).recipe

    return _load


def test_small_runs_learn_and_more_old_text_retains_more(load, store: Store) -> None:
    small = Surrogates(load(), store)
    assert small.steps == 4 and small.tokens(4) == 4 * 8 * 32
    base, none, half = small.base(), small.trained(0.0, 4), small.trained(0.5, 4)
    new, old = 0, 1
    assert [part.old for part in small.parts] == [False, True]
    assert none[new].nats.sum() < base[new].nats.sum() and half[old].nats.sum() < none[old].nats.sum()
    for run in (none, half):
        assert np.array_equal(run[new].tokens, base[new].tokens)
        assert len(run[new].nats) == len(run[new].sizes) <= 12


def test_what_is_measured_on_is_not_trained_on(load, store: Store) -> None:
    made = load()
    small = Surrogates(made, store)
    for part in small.parts:
        start, stop = part.trained.documents
        held = part.held.num_documents
        first = made.data[part.name].documents[0] if made.data[part.name].documents else 0
        assert start == first + held and stop > start
        assert held <= (stop - start + held) // 10 + 1
    texts = list(prepare.documents(small.store, small.parts[1].trained, made))
    whole = list(prepare.documents(small.store, made.data["old"], made))
    held = small.parts[1].held.num_documents
    assert texts == whole[held : held + len(texts)]


def test_a_small_run_is_made_once(load, store: Store) -> None:
    first = Surrogates(load(), store).trained(0.5, 4)
    made = sorted(path.name for path in store.root.iterdir())
    again = Surrogates(load(), store).trained(0.5, 4)
    assert sorted(path.name for path in store.root.iterdir()) == made
    assert np.array_equal(first[0].nats, again[0].nats)


def test_a_probe_that_cannot_be_made_says_why(load, tiny_recipe: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match=r"small: stages\[0\].replay: missing, but the probe compares"):
        Surrogates(load("stages.cpt.methods=[full]", "stages.cpt.replay=null"), store)
    with pytest.raises(DataError, match=r"data.one: one document, but the probe holds some out"):
        Surrogates(load("stages.cpt.mixture={one: 1.0}"), store)
    made = load()
    with pytest.raises(RecipeError, match="no cpt stage, so there is nothing to probe"):
        Surrogates(made.model_copy(update={"stages": []}), store)
    with pytest.raises(RunError, match="goes on from base, which has not been made yet"):
        Surrogates(recipe.load(tiny_recipe).recipe, store)
