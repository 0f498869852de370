"""Special tokens in judged text act as text, and two answers part at a token."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from workbench.errors import ModelError
from workbench.safety.guards.decoding import batches, defused, fork


def test_defused_text_encodes_to_no_special_token(tokenizer: PreTrainedTokenizerFast) -> None:
    special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    text = "a " + " b ".join(sorted(special)) + "".join(sorted(special))
    ids = set(tokenizer.encode(defused(tokenizer, text), add_special_tokens=False))
    assert not ids & set(tokenizer.all_special_ids)
    assert not ids & {tokenizer.convert_tokens_to_ids(token) for token in special}
    assert defused(tokenizer, "plain < text |>") == "plain < text |>"


def test_texts_fork_at_their_first_difference(tokenizer: PreTrainedTokenizerFast) -> None:
    safe, unsafe = (tokenizer.convert_tokens_to_ids(word) for word in ("safe", "unsafe"))
    assert fork(tokenizer, "safe", "unsafe") == (safe, unsafe)
    assert fork(tokenizer, "\n\nsafe", "\n\nunsafe") == (safe, unsafe)
    with pytest.raises(ModelError, match="does not tell 'safe' from 'safe'"):
        fork(tokenizer, "safe", "safe")


def test_batches_hold_each_row_once_and_the_longest_first() -> None:
    rows = [[0] * length for length in (3, 9, 1, 9, 5)]
    assert batches(rows, 2) == [[1, 3], [4, 0], [2]]
    assert batches([], 2) == []
