"""Fertility: how many tokens a text costs under a tokenizer, which a new vocabulary is meant to lower.

Counted per UTF-8 byte, so that it means the same in scripts with and without spaces between words, and
document by document without marks, so that two tokenizers are compared on the same items.
"""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerBase

from workbench.data import TokenFile
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.measurement import Measurement


def fertility(text: TokenFile, tokenizer: PreTrainedTokenizerBase, entry: TextEntry) -> Measurement:
    """Tokens per UTF-8 byte of a text, one item a document."""
    marks = sum(mark is not None for mark in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    starts = np.asarray(text.starts)
    tokens = np.diff(starts) - marks
    sizes = np.diff(np.concatenate(([0], np.cumsum(text.bytes, dtype=np.int64)))[starts])
    counted = zip(tokens.tolist(), sizes.tolist(), strict=True)
    items = {str(i): (float(count), float(size)) for i, (count, size) in enumerate(counted)}
    return Measurement(
        "language", entry.name, "fertility", items, "mean", False, "tokens per UTF-8 byte, whole documents"
    )
