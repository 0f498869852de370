"""A new LLaMA-3 (arXiv 2407.21783, section 3.2): grouped queries, rotary positions, SwiGLU, RMSNorm."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from workbench.models.tokenizer import BEGIN, END, END_OF_TURN, PAD, SPECIAL_TOKENS
from workbench.recipe.inputs import NewModel

TOKEN_ID = {token: number for number, token in enumerate(SPECIAL_TOKENS)}


def configuration(section: NewModel) -> LlamaConfig:
    """The configuration of a new LLaMA-3; the ids of the special tokens are those of `train_tokenizer`."""
    return LlamaConfig(
        vocab_size=section.vocab_size,
        hidden_size=section.hidden_size,
        intermediate_size=section.intermediate_size,
        num_hidden_layers=section.layers,
        num_attention_heads=section.heads,
        num_key_value_heads=section.kv_heads,
        max_position_embeddings=section.context,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": section.rope_theta},
        tie_word_embeddings=section.tie_embeddings,
        bos_token_id=TOKEN_ID[BEGIN],
        eos_token_id=TOKEN_ID[END],
        pad_token_id=TOKEN_ID[PAD],
        dtype="float32",
    )


def new(section: NewModel, seed: int) -> LlamaForCausalLM:
    """Make a LLaMA-3 with random weights, the same ones for the same seed.

    Args:
        section: sizes of the model.
        seed: of the weights; the global generator is left as it was.

    Returns:
        The model in float32, in evaluation mode.
    """
    config = configuration(section)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=TOKEN_ID[BEGIN],
        eos_token_id=[TOKEN_ID[END], TOKEN_ID[END_OF_TURN]],
        pad_token_id=TOKEN_ID[PAD],
    )
    model.eval()
    return model
