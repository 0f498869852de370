"""Where copies go, what stacked copies do, and which models are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from workbench import models
from workbench.errors import ModelError
from workbench.models.expansion import layout
from workbench.recipe.methods import ControlLlm

TOKENS = torch.arange(24).reshape(2, 12)


def make(**changes: object) -> LlamaForCausalLM:
    sizes = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes))).eval()


def test_positions_are_the_last_of_each_group() -> None:
    assert models.positions(32, 8) == [3, 7, 11, 15, 19, 23, 27, 31]
    assert models.positions(4, 4) == [0, 1, 2, 3]
    assert models.positions(6, 1) == [5]


@pytest.mark.parametrize("blocks", [0, 3, 5, 33])
def test_blocks_that_do_not_divide_are_refused(blocks: int) -> None:
    with pytest.raises(
        ModelError, match=rf"blocks: {blocks} does not divide the 32 .*\[1, 2, 4, 8, 16, 32\]"
    ):
        models.positions(32, blocks)


def test_depths_of_the_three_structures() -> None:
    assert len(layout(32, 8, "concat").origin) == 32
    assert len(layout(32, 8, "stack").origin) == 40
    hybrid = layout(32, 8, "hybrid")
    assert len(hybrid.origin) == 36
    assert hybrid.added == [4, 13, 22, 31] and hybrid.parallel == [8, 17, 26, 35]
    assert [hybrid.origin[i] for i in hybrid.added + hybrid.parallel] == [3, 11, 19, 27, 7, 15, 23, 31]


@pytest.mark.parametrize(
    "changes", [{}, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}]
)
def test_stacked_copies_change_no_bit(changes: dict[str, object], tmp_path: Path) -> None:
    base = make(**changes)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases are zero in a new model
    expanded = models.stack(base, 2)
    assert type(expanded) is LlamaForCausalLM and expanded.config.num_hidden_layers == 6
    assert models.step_0_deviation(base, expanded, TOKENS) == 0
    assert expanded.config.expansion["added"] == [2, 5]
    expanded.save_pretrained(tmp_path)
    loaded = models.load(tmp_path)
    assert torch.equal(loaded(TOKENS).logits, expanded(TOKENS).logits)
    assert loaded.config.expansion == expanded.config.expansion


def test_every_weight_of_a_stacked_copy_but_the_zeroed_is_that_of_its_block() -> None:
    blocks = models.blocks(models.stack(make(), 2))
    for name, weight in blocks[2].state_dict().items():
        if "o_proj" in name or "down_proj" in name:
            assert not weight.any()
        else:
            assert torch.equal(weight, blocks[1].state_dict()[name])
            assert weight.data_ptr() != blocks[1].state_dict()[name].data_ptr()


def test_expanding_twice_is_refused_also_from_disk(tmp_path: Path) -> None:
    concat = ControlLlm(blocks=2)
    for name, first in (("stack", models.stack(make(), 2)), ("concat", models.expand(make(), concat, 1))):
        first.save_pretrained(tmp_path / name)
        for model in (first, models.load(tmp_path / name)):
            for again in (lambda m: models.stack(m, 1), lambda m: models.expand(m, concat, 1)):
                with pytest.raises(ModelError, match=f"expanded already .structure {name}, 2 blocks"):
                    again(model)


def test_only_a_llama_can_be_expanded() -> None:
    other = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=10))
    with pytest.raises(ModelError, match="GPT2LMHeadModel cannot be expanded"):
        models.stack(other, 1)
    with pytest.raises(ModelError, match="GPT2LMHeadModel cannot be expanded"):
        models.expand(other, ControlLlm(blocks=1), 1)
