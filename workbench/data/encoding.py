"""Token ids of texts, and how many bytes of its text each token stands for.

A token of a byte-level encoding stands for as many bytes as it has letters. Under other tokenizers bytes
are counted from offsets: a token stands for the text from where all tokens before it end to where it ends,
and of the tokens that share one character, the first has all of its bytes. Either way the bytes of a
document's tokens add up to the document.
"""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from workbench.errors import DataError

MAX_BYTES = np.iinfo(np.uint16).max


class Encoder:
    """A copy of a tokenizer that cuts nothing off, finds no special tokens in text, and counts bytes.

    In marked text it finds them, and puts none around it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, marked: bool) -> None:
        self.backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.backend.no_truncation()
        self.backend.no_padding()
        self.identity = hashlib.sha256(self.backend.to_str().encode()).hexdigest()
        self.backend.encode_special_tokens = not marked
        added = self.backend.get_added_tokens_decoder()
        self.marks = [i for i, token in added.items() if marked and token.special]
        self.bos = [] if marked or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.eos = [] if marked or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.dtype = np.dtype("<u2" if max(tokenizer.get_vocab().values()) < 1 << 16 else "<u4")
        self.letters = _letters(self.backend)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, with nothing around it."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode(self, texts: list[str]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of all documents one after the other, the bytes of each, and tokens per document."""
        rows = self.ids(texts)
        ids = chain.from_iterable((*self.bos, *row, *self.eos) for row in rows)
        owner = np.arange(len(texts)).repeat([len(row) for row in rows])  # of tokens but marks
        told = np.fromiter(chain.from_iterable(rows), np.int64, len(owner))
        sizes = None if self.letters is None else self.letters[told]
        if sizes is None or not _add_up(texts, sizes, owner):
            sizes = _token_bytes(texts, self.backend.encode_batch(texts, add_special_tokens=False), owner)
        sizes[np.isin(told, self.marks)] = 0
        marks = len(self.bos) + len(self.eos)
        padded = np.zeros(len(sizes) + marks * len(texts), dtype=np.int64)
        padded[np.arange(len(sizes)) + owner * marks + len(self.bos)] = sizes
        return np.fromiter(ids, self.dtype), padded, np.bincount(owner, minlength=len(texts)) + marks


def _letters(backend: Tokenizer) -> NDArray[np.int64] | None:
    """Bytes that each token stands for under a byte-level encoding; None under any other."""
    state = json.loads(backend.to_str())
    splits = state["pre_tokenizer"] or {}
    if not any(part["type"] == "ByteLevel" for part in splits.get("pretokenizers", [splits]) if part):
        return None
    added = {token["id"] for token in state["added_tokens"]}  # these are written as they are
    vocabulary = backend.get_vocab()
    letters = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, number in vocabulary.items():
        letters[number] = len(token.encode() if number in added else token)
    return letters


def _add_up(texts: list[str], sizes: NDArray[np.int64], owner: NDArray[np.int64]) -> bool:
    """Whether the bytes of the tokens are those of the documents; no token has more than can be said."""
    documents = np.bincount(owner, weights=sizes, minlength=len(texts))
    return bool(
        (documents == [len(text.encode()) for text in texts]).all() and sizes.max(initial=0) <= MAX_BYTES
    )


def _token_bytes(texts: list[str], encodings: list[Encoding], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """UTF-8 bytes of text that each token stands for.

    Args:
        texts: D documents.
        encodings: their tokens, N in all.
        owner: [N], which document each token belongs to, rising.

    Raises:
        DataError: no token for a text, or more bytes to a token than a uint16 can say.
    """
    character = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    before = np.zeros(len(character) + 1, dtype=np.int64)  # bytes before each character of all texts
    np.cumsum(1 + (character >= 0x80) + (character >= 0x800) + (character >= 0x10000), out=before[1:])
    stops = np.cumsum([len(text) for text in texts])  # [D], characters up to the end of each text
    ends = np.fromiter((end for e in encodings for _, end in e.offsets), np.int64, len(owner))
    ends += np.concatenate(([0], stops))[owner]
    last = np.diff(owner, append=len(texts)) > 0  # token of its document
    ends[last] = stops[owner[last]]  # what was stripped at the end counts with it
    sizes = np.diff(before[np.maximum.accumulate(ends)], prepend=0)
    silent = {document for document, text in enumerate(texts) if text} - set(owner[last].tolist())
    lost = [*silent, *owner[sizes > MAX_BYTES].tolist()]
    if lost:
        raise DataError(
            f"the document that begins {texts[lost[0]][:40]!r}: the tokenizer drops it, or makes one token "
            f"of more than {MAX_BYTES} bytes; use a tokenizer that knows its characters"
        )
    return sizes
