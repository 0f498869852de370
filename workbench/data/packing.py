"""Rows of several documents each, in which no document sees its neighbour.

Windows are cut from the stream of tokens without padding; a document that is longer than the rest of
its row goes on in another row as a document of its own. Windows of a file of rows hold whole rows and
padding, and say themselves what is asked for. Letters: B rows, L tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.data.tokens import Window

NO_TARGET = -100  # label of a position whose next token is not predicted; what cross entropy ignores


@dataclass(frozen=True)
class Batch:
    """Packed rows, ready for a causal language model.

    Attributes:
        tokens: [B, L] int64.
        labels: [B, L] int64, the token after `tokens[b, l]`, or what a row asks for in its place; -100 where
            that is nothing, or of another document.
        positions: [B, L] int64, place in the document; every document of a row starts at 0.
        documents: [B, L] int32, index of the document inside its row.
        sources: B names, the source of each row.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor
    sources: list[str]


def pack(windows: Sequence[Window], sources: Sequence[str], sequence_length: int) -> Batch:
    """Stack windows of L + 1 tokens into a batch of rows of L tokens and their labels.

    Args:
        windows: B windows; may be none, as for a process that has no row of a batch.
        sources: B names.
        sequence_length: L.
    """
    shape = (len(windows), sequence_length + 1)
    tokens = np.array([window.tokens for window in windows], dtype=np.int64).reshape(shape)
    asked = np.array([_asked(window) for window in windows], dtype=np.int64).reshape(shape)
    documents = np.array([window.documents for window in windows], dtype=np.int32).reshape(shape)
    place = np.arange(sequence_length)
    first = np.ones((len(windows), sequence_length), dtype=bool)
    first[:, 1:] = documents[:, 1:-1] != documents[:, :-2]
    positions = place - np.maximum.accumulate(np.where(first, place, 0), axis=1)
    labels = np.where(documents[:, 1:] == documents[:, :-1], asked[:, 1:], NO_TARGET)
    return Batch(
        tokens=torch.from_numpy(tokens[:, :-1].copy()),
        labels=torch.from_numpy(labels),
        positions=torch.from_numpy(positions),
        documents=torch.from_numpy(documents[:, :-1].copy()),
        sources=list(sources),
    )


def _asked(window: Window) -> NDArray[np.int64] | NDArray[np.int32]:
    return window.tokens if window.labels is None else window.labels


def attention_mask(documents: Tensor) -> Tensor:
    """Who may look at whom: every token at itself and at earlier tokens of its own document.

    Transformers hands a mask of four dimensions to `sdpa` attention as it is. Its `eager` attention adds
    the mask to the scores instead: there, give 0 for True and the least finite number for False.

    Args:
        documents: [B, L], index of the document inside the row.

    Returns:
        [B, 1, L, L] bool; True at [b, 0, i, j] where token i may attend to token j.
    """
    same = documents[:, :, None] == documents[:, None, :]  # [B, L, L]
    return same.tril().unsqueeze(1)
