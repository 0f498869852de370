"""Merging two models: the ends are the models themselves, and only twins are merged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from workbench.errors import ModelError
from workbench.recipe.methods import MergeAlgorithm
from workbench.recipe.schema import Merge
from workbench.retention import merging

SETTINGS = Merge(kind="merge", weights=[0.5])


@pytest.fixture
def pair(tiny_model_folder: Path) -> tuple[Any, Any]:
    base = LlamaForCausalLM.from_pretrained(tiny_model_folder)
    trained = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return base, trained


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("algorithm", ["linear", "slerp", "ties", "dare"])
def test_weight_0_is_the_base(pair: tuple[Any, Any], algorithm: MergeAlgorithm) -> None:
    base = copy.deepcopy(pair[0])
    merged = merging.merge(base, pair[1], algorithm, 0.0, SETTINGS, 1)
    assert merged is base and equal(merged, pair[0])


@pytest.mark.parametrize("algorithm", ["linear", "slerp"])
def test_weight_1_is_the_trained_model(pair: tuple[Any, Any], algorithm: MergeAlgorithm) -> None:
    assert equal(merging.merge(pair[0], pair[1], algorithm, 1.0, SETTINGS, 1), pair[1])


def test_what_is_dropped_depends_on_the_seed_alone(pair: tuple[Any, Any]) -> None:
    one, two, other = (
        merging.merge(copy.deepcopy(pair[0]), pair[1], "dare", 0.5, SETTINGS, seed) for seed in (1, 1, 2)
    )
    assert equal(one, two) and not equal(one, other)


def test_keeps_the_dtype_of_the_base(pair: tuple[Any, Any]) -> None:
    base, trained = pair
    merged = merging.merge(base.bfloat16(), trained, "linear", 1.0, SETTINGS, 1)
    assert merged.dtype == torch.bfloat16 and equal(merged, trained.bfloat16())


def test_models_that_differ_are_refused(pair: tuple[Any, Any]) -> None:
    base, trained = pair
    trained.resize_token_embeddings(330)
    with pytest.raises(ModelError, match=r"embed_tokens\.weight: \[320, 64\] in the base, \[330, 64\]"):
        merging.merge(base, trained, "linear", 0.5, SETTINGS, 1)
