"""A tokenizer of bytes, and token files made with it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.data import TokenFile, write_tokens

BOS, EOS = "<|begin|>", "<|end|>"


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, so that most characters beyond ASCII are split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BOS, EOS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)


@pytest.fixture
def make_tokens(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> Callable[[str, int], TokenFile]:
    """Make a token file of the given number of random documents, distinct by name."""

    def make(name: str, documents: int) -> TokenFile:
        draw = random.Random(name)
        texts = ["".join(draw.choices("abcdefgh ", k=draw.randint(1, 40))) for _ in range(documents)]
        return write_tokens(texts, byte_tokenizer, tmp_path / name, name)

    return make
