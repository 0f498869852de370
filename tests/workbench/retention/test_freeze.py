"""Patterns freeze what they match, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from workbench.errors import ModelError
from workbench.recipe.methods import Freeze
from workbench.retention import freeze


@pytest.fixture
def model(tiny_model_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_model_folder)


def test_what_a_pattern_matches_stays(model: LlamaForCausalLM) -> None:
    left = freeze.freeze(model, Freeze(patterns=["model.layers.0.*", "lm_head.weight"]))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if name.startswith(("model.layers.0.", "lm_head"))
    }
    assert left == sum(p.numel() for n, p in model.named_parameters() if n not in frozen)


def test_what_was_frozen_before_stays_so(model: LlamaForCausalLM) -> None:
    model.model.norm.requires_grad_(False)
    freeze.freeze(model, Freeze(patterns=["model.layers.*"]))
    assert not model.model.norm.weight.requires_grad


def test_a_pattern_without_a_match_names_the_nearest(model: LlamaForCausalLM) -> None:
    with pytest.raises(ModelError, match=r"'model\.embed_token\.weight' .* model\.embed_tokens\.weight"):
        freeze.freeze(model, Freeze(patterns=["model.norm.weight", "model.embed_token.weight"]))
    assert model.model.norm.weight.requires_grad  # refused before anything changed


def test_something_must_be_left(model: LlamaForCausalLM) -> None:
    with pytest.raises(ModelError, match="leave some free"):
        freeze.freeze(model, Freeze(patterns=["*"]))
