"""A new model is a LLaMA-3 of the sizes asked for, and the same one for the same seed."""

from __future__ import annotations

import torch

from workbench import models
from workbench.models.tokenizer import SPECIAL_TOKENS
from workbench.recipe.inputs import NewModel

SECTION = NewModel(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    layers=3,
    heads=8,
    kv_heads=2,
    context=128,
    tokenizer_sources=["text"],
)


def test_same_seed_same_weights() -> None:
    state = torch.random.get_rng_state()
    a, b, c = models.new(SECTION, 1), models.new(SECTION, 1), models.new(SECTION, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, x), y, z in zip(a.named_parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(x, y)
        assert torch.equal(x, z) == ("norm" in name)


def test_is_a_llama_3() -> None:
    model = models.new(SECTION, 1)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (64, 64) and attention.k_proj.weight.shape == (16, 64)
    assert model.config.rope_parameters["rope_theta"] == 500_000.0
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) == models.count_parameters(model.config)
    untied = models.new(SECTION.model_copy(update={"tie_embeddings": False}), 1)
    assert models.count_parameters(untied.config) == models.count_parameters(model.config) + 300 * 64


def test_special_tokens_are_those_of_the_trained_tokenizer() -> None:
    tokenizer, config = models.train_tokenizer([], 262), models.new(SECTION, 1).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
