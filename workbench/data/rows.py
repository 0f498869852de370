"""Rows: sequences that say at every place what is asked for, packed whole into bins of one length.

A row of n tokens takes n places of a bin; what no row takes is padding, which is a document of its own and
asks for nothing. So no row is ever parted from its beginning, and a window of a file of rows is exactly
one bin.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from workbench import storage
from workbench.data.encoding import Encoder
from workbench.data.packing import NO_TARGET
from workbench.data.sources import Exchange
from workbench.data.tokens import FACTS, TokenFile, batched
from workbench.errors import DataError
from workbench.progress import progress

Tokens = tuple[int, ...]

Arrays = tuple[NDArray[Any], NDArray[np.int32]]  # tokens and labels of a row

PADDING = 0  # the token of places that nobody sees


@dataclass(frozen=True)
class Row:
    """One sequence.

    Attributes:
        tokens: n ids.
        labels: n ids, what is asked for at the place of each token; NO_TARGET where nothing is, as at the
            first, which nothing precedes.
    """

    tokens: Tokens
    labels: Tokens


def answered(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    """An ordinary row: the answer is scored, the prompt is not.

    Args:
        prompt: what stands before the answer, chat marks included.
        answer: with the mark that ends it.

    Raises:
        DataError: the prompt or the answer is empty.
    """
    if not prompt:
        raise DataError("the prompt is empty, so nothing precedes the first token; give the row a prompt")
    if not answer:
        raise DataError("the answer is empty; leave the row out, or give it an answer")
    return Row((*prompt, *answer), (NO_TARGET,) * len(prompt) + tuple(answer))


def tokenized(
    exchanges: Iterable[Exchange], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[Tokens, Tokens]]:
    """Tokens of prompt and answer of each exchange; together those of its whole text.

    An answer begins with the first token that the prompt alone does not have.

    Args:
        exchanges: parts of the text of a chat template (`chat.parted`).
        tokenizer: a fast tokenizer.
    """
    encoder = Encoder(tokenizer, marked=True)
    for some in batched(exchanges, lambda parts: 2 * len(parts[0]) + len(parts[1])):
        alone = encoder.ids([prompt for prompt, _ in some])
        whole = encoder.ids([prompt + answer for prompt, answer in some])
        for prompt, both in zip(alone, whole, strict=True):
            pairs = enumerate(zip(prompt, both, strict=False))
            border = next((place for place, (left, right) in pairs if left != right), len(prompt))
            yield tuple(both[:border]), tuple(both[border:])


def write_rows(
    rows: Iterable[Row], length: int, tokenizer: PreTrainedTokenizerBase, folder: Path, description: str
) -> TokenFile:
    """Write rows into a folder, packed into bins; the same rows make the same bins.

    Args:
        rows: in the order in which they look for a bin.
        length: places of a bin; window `i` of that length is bin `i`, and there are no others.
        tokenizer: whose tokens they are.
        folder: filled; made where it is absent. An interrupted folder is not a token file.
        description: shown beside the progress, and kept as the name.

    Raises:
        DataError: there are no rows, or one is longer than a bin or asks for nothing; names it.
    """
    encoder = Encoder(tokenizer, marked=True)
    held: list[Arrays] = []
    with progress(description, None, "rows") as advance:
        for number, row in enumerate(rows):
            _check(row, f"{description}: row {number}", length, tokenizer)
            held.append((np.array(row.tokens, encoder.dtype), np.array(row.labels, np.int32)))
            advance(1)
    if not held:
        raise DataError(f"{description}: there are no rows; check the source and its range of documents")
    tokens, labels, starts = _laid_out(held, length)
    folder.mkdir(parents=True, exist_ok=True)
    tokens.tofile(folder / "tokens.bin")
    labels.astype("<i4").tofile(folder / "labels.bin")
    np.array(starts, "<i8").tofile(folder / "documents.bin")
    facts = {
        "name": description,
        "tokens": len(tokens),
        "documents": len(starts) - 1,
        "bytes": 0,
        "dtype": encoder.dtype.name,
        "tokenizer": encoder.identity,
        "length": length,
        "rows": len(held),
        "in_rows": sum(len(row) for row, _ in held),
        "scored": int((labels != NO_TARGET).sum()),
    }
    storage.write_json(folder / FACTS, facts)
    return TokenFile(folder)


def bins(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Pack rows one after the other, each into the fullest bin that has room for it (best fit).

    Args:
        sizes: places that each row takes, at most `length`.
        length: places of a bin.

    Returns:
        The rows of each bin, by their numbers.
    """
    packed: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # places left, and the bin, in order
    for row, size in enumerate(sizes):
        fit = bisect_left(rooms, (size, 0))
        if fit == len(rooms):
            room, index = length, len(packed)
            packed.append([row])
        else:
            room, index = rooms.pop(fit)
            packed[index].append(row)
        if room > size:
            insort(rooms, (room - size, index))
    return packed


def _laid_out(held: Sequence[Arrays], length: int) -> tuple[NDArray[Any], NDArray[np.int32], list[int]]:
    """Tokens and labels of all bins, one after the other, and where documents start, and the last ends."""
    packed = bins([len(tokens) for tokens, _ in held], length)
    size = len(packed) * length + 1  # a window reads one token further
    all_tokens = np.full(size, PADDING, held[0][0].dtype)
    all_labels = np.full(size, NO_TARGET, np.int32)
    starts = []
    for index, inside in enumerate(packed):
        place = index * length
        for tokens, labels in (held[row] for row in inside):
            starts.append(place)
            here = slice(place, place + len(tokens))
            all_tokens[here], all_labels[here] = tokens, labels
            place = here.stop
        if place < (index + 1) * length:
            starts.append(place)
    return all_tokens, all_labels, [*starts, size - 1, size]


def _check(row: Row, name: str, length: int, tokenizer: PreTrainedTokenizerBase) -> None:
    size = len(row.tokens)
    fault = None
    if size > length:
        fault = f"{size} tokens, but a sequence has {length}; raise sequence_length, or leave it out"
    elif row.labels[:1] != (NO_TARGET,) or set(row.labels) == {NO_TARGET}:
        fault = "asks for its first token, or for nothing; give it a prompt and an answer"
    if fault:
        begins = " ".join(str(tokenizer.decode(list(row.tokens[:60]), skip_special_tokens=True)).split())[:60]
        raise DataError(f"{name}, which begins {begins!r}: {fault}")
