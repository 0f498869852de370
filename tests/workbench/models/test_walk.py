"""The walk over a decoder follows its forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from workbench import models
from workbench.errors import ModelError

ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


def test_linears_are_in_forward_order(tiny_model_folder: Path) -> None:
    model, called = models.load(tiny_model_folder), []
    block = models.blocks(model)[0]
    for name, linear in models.linears(block).items():
        linear.register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.arange(5)[None])
    assert called == list(models.linears(block))


def test_subsets_read_the_same_input(tiny_model_folder: Path) -> None:
    model, seen = models.load(tiny_model_folder), {}
    block = models.blocks(model)[1]
    for name, linear in models.linears(block).items():
        linear.register_forward_hook(lambda _, x, __, name=name: seen.update({name: x[0]}))
    model(torch.arange(5)[None])
    groups = models.subsets(block)
    assert groups == [ATTENTION, ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
    assert all(seen[name] is seen[group[0]] for group in groups for name in group)
    assert len({id(seen[group[0]]) for group in groups}) == len(groups)


def test_blocks_of_other_architectures() -> None:
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=8, n_head=2, vocab_size=10))
    assert models.blocks(model) is model.transformer.h
    model.config.n_layer = 5
    with pytest.raises(ModelError, match="no list of 5 decoder blocks"):
        models.blocks(model)


def test_counting_allocates_nothing() -> None:
    """LLaMA-3 8B (arXiv 2407.21783): 8.03 billion parameters, 32 GB if they were made."""
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    assert models.count_parameters(config) == 8_030_261_248
