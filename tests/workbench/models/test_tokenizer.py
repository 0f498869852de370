"""The tokenizer loses nothing and speaks LLaMA-3's chat format."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from workbench import models
from workbench.errors import ModelError
from workbench.models.tokenizer import SPECIAL_TOKENS

TEXTS = ["The river runs past the old mill.", "It's 12345 paces, isn't it?\n\nYes."] * 10
TOKENIZER = models.train_tokenizer(TEXTS, 300)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.decode(ids) == text or any(token in text for token in SPECIAL_TOKENS)


def test_encoding_puts_the_beginning_first() -> None:
    ids = TOKENIZER("The river").input_ids
    assert ids[0] == TOKENIZER.bos_token_id == 0 and ids.count(0) == 1
    assert (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) == (1, 2)


def test_is_the_same_for_the_same_text() -> None:
    assert models.train_tokenizer(iter(TEXTS), 300).get_vocab() == TOKENIZER.get_vocab()


def test_vocabulary_is_no_larger_than_asked_for(tmp_path: Path) -> None:
    assert len(TOKENIZER) <= 300
    assert len(models.train_tokenizer([], 262)) == 262
    with pytest.raises(ModelError, match="write 262 or more"):
        models.train_tokenizer(TEXTS, 261)


def test_digits_go_in_threes() -> None:
    tokenizer = models.train_tokenizer(["123456"] * 50, 400)
    assert tokenizer.tokenize("123456") == ["123", "456"]


def test_chat_format() -> None:
    """As published for Llama 3 Instruct; the template trims what it is given."""
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Hello "}]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert ids.count(TOKENIZER.convert_tokens_to_ids("<|eot_id|>")) == 2


def test_tokenizer_of_a_larger_model_is_refused() -> None:
    models.check_tokenizer(LlamaConfig(vocab_size=len(TOKENIZER)), TOKENIZER)
    with pytest.raises(ModelError, match=r"does not match the model: it has ids up to"):
        models.check_tokenizer(LlamaConfig(vocab_size=len(TOKENIZER) - 1), TOKENIZER)
