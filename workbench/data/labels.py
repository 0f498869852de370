"""Labels of documents, such as language or topic, by a linear classifier trained on texts of each label.

The features of a document are its words and its runs of one to three characters, hashed into a fixed
number of columns, each with the logarithm of how often it occurs, and scaled to length one. The
classifier is logistic regression (Weinberger et al. 2009 for the hashing; Joulin et al. 2017 for how far
this goes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import normalize

from workbench.data.tokens import batches
from workbench.data.words import BASE, Hashes, drawn, mixed, words
from workbench.errors import DataError

COLUMNS = 1 << 18
CHARACTERS = 1000  # the head of a document says what it is about
RUNS = (1, 2, 3)
HELD_OUT = 10  # every so-manieth seed text tests the classifier
PENALTY = 1e-6  # of the squared weights; texts of length one make small gradients


@dataclass(frozen=True)
class Labeller:
    """A trained classifier.

    Attributes:
        labels: in the order of the classifier's numbers.
        accuracy: share of the held-out seed texts that get the label of their seed.
        held_out: how many those are.
    """

    labels: tuple[str, ...]
    accuracy: float
    held_out: int
    _model: SGDClassifier

    def __call__(self, found: csr_matrix) -> list[str]:
        """The likeliest label of each text, from the `features` of the texts."""
        return [self.labels[number] for number in self._model.predict(found)]


def fit(seeds: Mapping[str, Iterable[str]], most: int) -> Labeller:
    """Train on at most `most` texts of each label.

    Raises:
        DataError: a label has fewer texts than are needed to train and to test.
    """
    matrices, numbers, held = [], [], []
    for number, (label, texts) in enumerate(seeds.items()):
        count = 0
        for batch in batches(text[:CHARACTERS] for text in islice(texts, most)):
            matrices.append(features(batch))
            held += [(count + place) % HELD_OUT == HELD_OUT - 1 for place in range(len(batch))]
            count += len(batch)
        numbers += [number] * count
        if count < HELD_OUT:
            raise DataError(
                f"label {label}: {count} seed texts, but at least {HELD_OUT} are needed; name a larger source"
            )
    return _trained(tuple(seeds), vstack(matrices, format="csr"), np.array(numbers), np.array(held))


def features(texts: Sequence[str]) -> csr_matrix:
    """Features of texts: [D, COLUMNS] float32, rows of length one; a text of no characters is all zeros."""
    heads = [text[:CHARACTERS].lower() for text in texts]
    spelt = words(heads)
    lengths = np.array([len(text) for text in heads], np.int64)
    codes = np.frombuffer("".join(heads).encode("utf-32-le"), np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(heads)), lengths)
    rows, hashes = [np.repeat(np.arange(len(heads)), spelt.counts)], [spelt.hashes]
    for run in RUNS:
        found, inside = _runs(codes, owner, run)
        rows.append(owner[: len(inside)][inside])
        hashes.append(found)
    columns = (np.concatenate(hashes) % np.uint64(COLUMNS)).astype(np.int64)
    ones = np.ones(len(columns), np.float32)
    matrix = csr_matrix((ones, (np.concatenate(rows), columns)), shape=(len(heads), COLUMNS))
    matrix.sum_duplicates()
    np.log1p(matrix.data, out=matrix.data)
    return normalize(matrix, copy=False)


def _runs(codes: Hashes, owner: NDArray[np.int64], run: int) -> tuple[Hashes, NDArray[np.bool_]]:
    """Hashes of `run` consecutive characters of a text, and which places begin one."""
    count = max(len(codes) - run + 1, 0)
    total: Hashes = np.full(count, drawn(1, run)[0])  # so that runs of different length differ
    for place in range(run):
        total = total * BASE + codes[place : place + count]
    inside = owner[:count] == owner[run - 1 :][:count]
    return mixed(total[inside]), inside


def _trained(labels: tuple[str, ...], matrix: Any, numbers: NDArray[Any], held: NDArray[Any]) -> Labeller:
    model = SGDClassifier(loss="log_loss", alpha=PENALTY, random_state=0)
    model.fit(matrix[~held], numbers[~held])
    right = model.predict(matrix[held]) == numbers[held]
    return Labeller(labels, float(right.mean()), len(right), model)
