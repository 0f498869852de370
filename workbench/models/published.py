"""Published shapes of LLaMA models, so that a recipe can be forecast before anything is fetched.

Source: config.json of each; Llama 2 (arXiv 2307.09288, table 1), Llama 3 (arXiv 2407.21783, table 3).
"""

from __future__ import annotations

from transformers import LlamaConfig

# hub id: hidden, intermediate, layers, query heads, key-value heads, vocabulary, context, tied embeddings
_SHAPES = {
    "meta-llama/Llama-2-7b-hf": (4096, 11008, 32, 32, 32, 32000, 4096, False),
    "meta-llama/Meta-Llama-3-8B": (4096, 14336, 32, 32, 8, 128256, 8192, False),
    "meta-llama/Meta-Llama-3-70B": (8192, 28672, 80, 64, 8, 128256, 8192, False),
    "meta-llama/Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128256, 131072, False),
    "meta-llama/Llama-3.1-8B-Instruct": (4096, 14336, 32, 32, 8, 128256, 131072, False),
    "meta-llama/Llama-3.1-70B": (8192, 28672, 80, 64, 8, 128256, 131072, False),
    "meta-llama/Llama-3.2-1B": (2048, 8192, 16, 32, 8, 128256, 131072, True),
    "meta-llama/Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128256, 131072, True),
}


def published(hub: str) -> LlamaConfig | None:
    """The configuration of a LLaMA on the hub as far as its size goes; None if it is another model."""
    if hub not in _SHAPES:
        return None
    hidden, intermediate, layers, heads, kv_heads, vocabulary, context, tied = _SHAPES[hub]
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
    )
