"""Token files: the documents of a source as one flat array of token ids that is mapped into memory.

A document is BOS + text + EOS, with those of the two marks that the tokenizer has; or an exchange as
the chat template tells it, which holds all of its marks. A folder holds

    tokens.bin     token ids, little-endian; uint16 where the vocabulary allows it, else uint32
    bytes.bin      uint16, how many UTF-8 bytes of its document each token stands for; 0 for marks
    documents.bin  int64, where each document starts, and the end of the last
    tokens.json    counts, dtype and identity of the tokenizer; written last

A file of rows (`rows.write_rows`) has no bytes, but in their place

    labels.bin     int32, what is asked for at the place of each token; NO_TARGET where nothing is
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from workbench import storage
from workbench.data.encoding import Encoder
from workbench.errors import DataError
from workbench.progress import progress

Item = TypeVar("Item")

FACTS = "tokens.json"
BATCH_CHARACTERS = 1 << 20  # text that is tokenized at a time


@dataclass(frozen=True)
class Window:
    """A stretch of L + 1 tokens: the tokens 0..L-1 of a row and, one further on, their labels.

    Attributes:
        tokens: [L + 1] int64.
        documents: [L + 1] int32, index of the document, 0 for the one that the window begins in.
        labels: [L + 1] int32, what is asked for at the place of each token; None: the token itself.
    """

    tokens: NDArray[np.int64]
    documents: NDArray[np.int32]
    labels: NDArray[np.int32] | None = None


class TokenFile:
    """A token file, opened for reading; holds no more in memory than what is looked at.

    Attributes:
        folder: where it is.
        name: the description it was written with.
        tokens: [num_tokens] uint16 or uint32.
        labels: [num_tokens] int32, what is asked for at the place of each token; None: the token itself.
        length: of the windows of a file with labels; None where any will do.
        starts: [num_documents + 1] int64, first token of each document, and num_tokens.
        num_tokens: tokens, BOS and EOS included.
        num_documents: documents.
        num_bytes: UTF-8 bytes of all documents; 0 where labels are in their place.
        tokenizer: SHA-256 of the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder that `write_tokens` or `write_rows` filled.

        Raises:
            DataError: not such a folder, or a file in it has not the size that was written.
        """
        if not (folder / FACTS).is_file():
            raise DataError(
                f"{folder}: not a token file, {FACTS} is missing; delete the folder and run again"
            )
        facts = storage.read_json(folder / FACTS)
        self.folder = folder
        self.name: str = facts["name"]
        self.num_tokens: int = facts["tokens"]
        self.num_documents: int = facts["documents"]
        self.num_bytes: int = facts["bytes"]
        self.tokenizer: str = facts["tokenizer"]
        self.tokens = _opened(folder / "tokens.bin", facts["dtype"], self.num_tokens)
        self.length: int | None = facts.get("length")
        self.labels: NDArray[np.int32] | None = None
        self._bytes: NDArray[np.uint16] | None = None
        if self.length is None:
            self._bytes = _opened(folder / "bytes.bin", "uint16", self.num_tokens)
        else:
            self.labels = _opened(folder / "labels.bin", "int32", self.num_tokens)
        self.starts = _opened(folder / "documents.bin", "int64", self.num_documents + 1)

    @property
    def bytes(self) -> NDArray[np.uint16]:
        """UTF-8 bytes of text that each token stands for, [num_tokens].

        Raises:
            DataError: the file has labels instead.
        """
        if self._bytes is None:
            raise DataError(
                f"{self.name} ({self.folder}): rows with labels, whose bytes are not counted; measure and "
                "order the plain tokens of the source"
            )
        return self._bytes

    def windows(self, sequence_length: int) -> int:
        """How many windows of `sequence_length` tokens, each with the token after it, the file holds.

        Raises:
            DataError: the rows of the file were packed for another length.
        """
        if self.length not in (None, sequence_length):
            raise DataError(
                f"{self.name} ({self.folder}): rows packed for sequences of {self.length} tokens, not "
                f"{sequence_length}; pack them anew"
            )
        return (self.num_tokens - 1) // sequence_length

    def window(self, i: int, sequence_length: int) -> Window:
        """Window `i`: the tokens from i * L on, L + 1 of them; windows share no predicted token."""
        start = i * sequence_length
        stop = start + sequence_length + 1
        if not 0 <= i < self.windows(sequence_length):
            raise IndexError(f"window {i} of {self.windows(sequence_length)} in {self.folder}")
        first, last = np.searchsorted(self.starts, (start, stop - 1), side="right")
        documents = np.zeros(sequence_length + 1, dtype=np.int32)
        documents[self.starts[first:last] - start] = 1
        return Window(
            tokens=self.tokens[start:stop].astype(np.int64),
            documents=documents.cumsum(dtype=np.int32),
            labels=None if self.labels is None else self.labels[start:stop],
        )

    def window_bytes(self, i: int, sequence_length: int) -> int:
        """UTF-8 bytes of tokens 2..L of the i-th L tokens: those predicted when they stand alone."""
        start = i * sequence_length
        return int(self.bytes[start + 1 : start + sequence_length].sum(dtype=np.int64))


def write_tokens(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    description: str,
    *,
    marked: bool = False,
) -> TokenFile:
    """Tokenize documents into a folder.

    The text of a document is text only: where it happens to spell a special token, it is taken
    letter by letter, unless the documents are marked. An interrupted folder is not a token file; the
    caller renames a whole one.

    Args:
        documents: texts, read once.
        tokenizer: a fast tokenizer; gives the ids of BOS and EOS.
        folder: filled; made where it is absent.
        description: shown beside the progress, and kept as the name.
        marked: the documents come from a chat template (`chat.render`): the special tokens that they
            spell are meant, and BOS and EOS are among them where the template wants them.

    Raises:
        DataError: no documents, or a text that the tokenizer cannot account for.
    """
    encoder = Encoder(tokenizer, marked)
    starts = [0]
    num_bytes = 0
    total = len(documents) if isinstance(documents, Sized) else None
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "tokens.bin").open("wb") as token_file,
        (folder / "bytes.bin").open("wb") as byte_file,
        progress(description, total, "documents") as advance,
    ):
        for texts in batches(documents):
            tokens, sizes, lengths = encoder.encode(texts)
            token_file.write(tokens.tobytes())
            byte_file.write(sizes.astype("<u2").tobytes())
            starts += (starts[-1] + lengths.cumsum()).tolist()
            num_bytes += int(sizes.sum())
            advance(len(texts))
    if len(starts) == 1:
        raise DataError(f"{description}: there are no documents; check the source and its range of documents")
    np.array(starts, "<i8").tofile(folder / "documents.bin")
    facts = {
        "name": description,
        "tokens": starts[-1],
        "documents": len(starts) - 1,
        "bytes": num_bytes,
        "dtype": encoder.dtype.name,
        "tokenizer": encoder.identity,
    }
    storage.write_json(folder / FACTS, facts)
    return TokenFile(folder)


def batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents by the million characters, so that work on many at a time stays within memory."""
    return batched(documents, len)


def batched(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Anything that holds a text, by the million characters."""
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += characters(item)
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _opened(path: Path, dtype: str, count: int) -> NDArray[Any]:
    stored = np.dtype(dtype).newbyteorder("<")
    expected = count * stored.itemsize
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        state = "missing" if found is None else f"{found} bytes long"
        raise DataError(
            f"{path}: {state}, but {expected} bytes were written; delete {path.parent} and run again"
        )
    return np.memmap(path, stored, mode="r").view(np.ndarray)  # slices of a memmap object are slow
