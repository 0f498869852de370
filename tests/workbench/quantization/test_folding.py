"""Folding moves numbers and keeps the function, and only where scales can pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from workbench import models
from workbench.errors import ModelError
from workbench.quantization import folding


def make(heads: int, kv_heads: int, *, bias: bool = False) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=40,
        attention_bias=bias,
        mlp_bias=bias,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.eval()
    return model


@pytest.mark.parametrize("bias", [False, True])
def test_logits_stay_and_weights_change(bias: bool) -> None:
    model, tokens = make(4, 4, bias=bias), torch.randint(40, (2, 16))
    block = models.blocks(model)[0]
    with torch.no_grad():
        before = model(tokens).logits
        for fold in folding.folds(block):
            (linear, *_) = folding.linears_of(block, fold).values()
            weight = linear.weight.clone()
            folding.apply(block, fold, torch.rand(linear.in_features) * 4 + 0.1)
            assert not torch.allclose(weight, linear.weight)
        torch.testing.assert_close(model(tokens).logits, before, rtol=1e-4, atol=1e-4)


def test_values_pass_to_the_output_only_if_each_head_has_its_own() -> None:
    through = [
        "self_attn.v_proj" in {fold.source for fold in folding.folds(models.blocks(make(4, kv_heads))[0])}
        for kv_heads in (4, 2)
    ]
    assert through == [True, False]


def test_another_block_is_refused() -> None:
    with pytest.raises(ModelError, match="input_layernorm"):
        folding.folds(nn.TransformerEncoderLayer(16, 2))
