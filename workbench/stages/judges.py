"""Who judges: the guard that a recipe names, loaded once in a process."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from workbench.recipe.safety import Judge
from workbench.recipe.schema import Recipe
from workbench.safety.guards import DuoGuard, Guard, LlamaGuard, WildGuard, WorldGuard
from workbench.safety.guards.llama_guard import V1, V3
from workbench.safety.guards.pretrained import load_causal, load_classifier
from workbench.safety.guards.taxonomy import BUILT_IN, DEFAULT, load_taxonomy, taxonomy_of
from workbench.stages.job import job_of
from workbench.stages.load import locate
from workbench.storage import Store


def guard(judge: Judge, recipe: Recipe, store: Store) -> Guard:
    """The guard of a section, from a folder, a pinned revision of the hub, or a variant of the recipe.

    Raises:
        RecipeError: the recipe makes no such variant, or there is no such taxonomy.
        DataError: no such folder.
        ModelError: it cannot be fetched, or is not a guard of its kind.
    """
    if judge.kind == "miniworld":
        return WorldGuard()
    if judge.variant:
        job = job_of(recipe, judge.variant, store)
        folder, dtype = job.model_folder, job.origin.dtype
    else:
        assert judge.model
        folder, dtype = locate(judge.model), judge.model.dtype
    found = _loaded(judge.kind, folder, dtype, judge.variant is not None)
    if isinstance(found, LlamaGuard):
        hazards = taxonomy_of(judge)
        # Version 1 has codes O1, O2, ...; all later ones S1, S2, ...
        return replace(found, taxonomy=hazards, wording=V1 if hazards.prefix == "O" else V3)
    return found


def forget() -> None:
    """Let go of all guards, so that their memory is free for a training."""
    _loaded.cache_clear()
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()


@lru_cache
def _loaded(kind: str, folder: Path, dtype: str, trained_here: bool) -> Guard:
    if kind == "duoguard":
        model, tokenizer = load_classifier(folder, getattr(torch, dtype))
    else:
        model, tokenizer = load_causal(folder, getattr(torch, dtype))
    torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
    if kind == "duoguard":
        return DuoGuard(model, tokenizer)
    if kind == "wildguard":
        return WildGuard(model, tokenizer, chat=trained_here)
    whole = load_taxonomy(BUILT_IN / f"{DEFAULT}.yaml")
    return LlamaGuard(model, tokenizer, whole, chat=trained_here)
