"""LLaMA Pro trains the added blocks alone, and they learn from the first step."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workbench import models
from workbench.errors import ModelError
from workbench.retention import llama_pro


def make() -> LlamaForCausalLM:
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True))


def test_only_added_blocks_train() -> None:
    model = models.stack(make(), 2)
    llama_pro.freeze(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        name for name, _ in model.named_parameters() if ".layers.2." in name or ".layers.5." in name
    }


def test_a_gradient_reaches_every_added_block() -> None:
    model = models.stack(make(), 2).train()
    llama_pro.freeze(model)
    tokens = torch.arange(20).reshape(2, 10)
    model(tokens, labels=tokens).loss.backward()
    for index in (2, 5):
        for zeroed in ("self_attn.o_proj", "mlp.down_proj"):
            assert model.get_parameter(f"model.layers.{index}.{zeroed}.weight").grad.any()


def test_a_model_without_added_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="no added blocks"):
        llama_pro.freeze(make())
