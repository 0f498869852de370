"""Fertility counts the tokens of text and no marks, of each document by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import data, models
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.fertility import fertility
from workbench.recipe.inputs import Source

TEXTS = ["The river runs.", "É", "under the old stone bridge"]


def test_agrees_with_the_tokenizer(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(tiny_model_folder)
    file = data.write_tokens(TEXTS, tokenizer, tmp_path, "texts")
    entry = TextEntry(name="river", text=Source(path="unused"), sequence_length=8)
    found = fertility(file, tokenizer, entry)
    tokens = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in TEXTS]
    sizes = [len(text.encode()) for text in TEXTS]
    assert list(found.items.values()) == list(zip(map(float, tokens), map(float, sizes), strict=True))
    assert found.value == pytest.approx(sum(tokens) / sum(sizes))
    assert found.key == "language.river.fertility" and not found.higher_is_better
