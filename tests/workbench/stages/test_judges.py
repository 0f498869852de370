"""Guards that a recipe names: rules, folders, variants of the run; loaded once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from workbench import recipe
from workbench.errors import DataError, ModelError, RecipeError
from workbench.recipe.inputs import Model
from workbench.recipe.safety import Judge
from workbench.recipe.schema import Recipe
from workbench.safety.guards import DuoGuard, Guard, LlamaGuard, WildGuard, WorldGuard
from workbench.safety.guards.llama_guard import V1, V3
from workbench.stages import judges, load
from workbench.stages.job import job_of
from workbench.storage import Store

TEXT = """\
name: tiny
description: a judge
seed: 1
model: {{path: {folder}}}
stages:
  - {{kind: quantize, methods: [rtn], bits: [8]}}
"""


@dataclass(frozen=True)
class Court:
    """A recipe, and where its variants lie."""

    recipe: Recipe
    store: Store

    def guard(self, **settings: Any) -> Guard:
        return judges.guard(Judge.model_validate(settings), self.recipe, self.store)


@pytest.fixture
def court(tiny_model_folder: Path, tmp_path: Path) -> Court:
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT.format(folder=tiny_model_folder))
    judges.forget()
    return Court(recipe.load(path).recipe, Store(tmp_path / "store"))


def test_the_kind_makes_the_guard_and_the_taxonomy_its_wording(court: Court, tiny_model_folder: Path) -> None:
    model = {"path": str(tiny_model_folder)}
    assert isinstance(court.guard(kind="miniworld"), WorldGuard)
    third = court.guard(kind="llama-guard", model=model)
    first = court.guard(kind="llama-guard", model=model, taxonomy="llama-guard-1")
    assert isinstance(third, LlamaGuard) and isinstance(first, LlamaGuard)
    assert (third.wording, first.wording) == (V3, V1)
    assert (third.taxonomy.prefix, first.taxonomy.prefix) == ("S", "O")
    wild = court.guard(kind="wildguard", model=model)
    assert isinstance(wild, WildGuard) and not wild.chat
    cut = court.guard(kind="llama-guard", model=model, taxonomy="miniworld", categories=["waking", "luring"])
    assert isinstance(cut, LlamaGuard) and cut.model is third.model and cut.categories == ("waking", "luring")
    with pytest.raises(RecipeError, match="taxonomy llama-guard-3: no category is named 'Hats'"):
        court.guard(kind="llama-guard", model=model, categories=["Hats"])
    with pytest.raises(RecipeError, match=r"llama-guard-9.yaml: no such file; did you mean llama-guard-"):
        court.guard(kind="llama-guard", model=model, taxonomy="llama-guard-9")


def test_a_guard_is_loaded_once(court: Court, tiny_model_folder: Path) -> None:
    settings = {"kind": "wildguard", "model": {"path": str(tiny_model_folder)}}
    assert court.guard(**settings) is court.guard(**settings)
    first = court.guard(**settings)
    judges.forget()
    assert court.guard(**settings) is not first


def test_a_variant_of_the_run_is_asked_as_it_was_trained(court: Court) -> None:
    job = job_of(court.recipe, "base", court.store)
    court.store.make(job.fingerprint, lambda out: load.build(job, out))
    guard = court.guard(kind="wildguard", variant="base")
    assert isinstance(guard, WildGuard) and guard.chat
    assert Path(guard.model.name_or_path) == job.model_folder
    with pytest.raises(RecipeError, match="no variant other"):
        court.guard(kind="wildguard", variant="other")


def test_a_classifier_has_its_head(court: Court, tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights \(lm_head.weight|weights \(score.weight"):
        court.guard(kind="duoguard", model={"path": str(tiny_model_folder)})
    folder = tmp_path / "duoguard"
    shutil.copytree(tiny_model_folder, folder)
    config = LlamaConfig.from_pretrained(folder, num_labels=12)
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    guard = court.guard(kind="duoguard", model={"path": str(folder)})
    assert isinstance(guard, DuoGuard) and isinstance(guard.tokenizer, PreTrainedTokenizerFast)
    (verdict,) = guard.judge(["The river"])
    assert verdict.unsafe is not None and 0 < verdict.unsafe < 1


def test_what_is_nowhere_is_an_error(tmp_path: Path) -> None:
    hub = Model.model_validate({"hub": "organisation/guard", "revision": "0" * 40})
    with pytest.raises(ModelError, match="organisation/guard at 00000000 could not be fetched"):
        load.locate(hub)
    with pytest.raises(DataError, match="no such file or folder"):
        load.locate(Model(path=str(tmp_path / "nowhere")))
    sizes = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 1}
    new = {**sizes, "kv_heads": 1, "context": 8, "tokenizer_sources": ["a"]}
    with pytest.raises(ModelError, match=r"model.new: there is no folder of it yet"):
        load.locate(Model.model_validate({"new": new}))
