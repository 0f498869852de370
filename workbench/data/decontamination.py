"""Decontamination: documents that share word n-grams with what an evaluation asks.

A question of at least n words gives all its n-grams; a shorter one is looked for whole, from `shortest`
words on, since a few common words meet by chance. A document that has one of them is contaminated.

Source: Brown et al. 2020 (GPT-3), appendix C, where n is 13 for most tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from workbench.data.tokens import batches
from workbench.data.words import Hashes, Words, ngrams, wholes, words
from workbench.recipe.preparation import Decontamination


class Questions:
    """The n-grams of all tasks.

    Args:
        tasks: the questions of each task by its name, read once.
        settings: how long the n-grams are.

    Attributes:
        tasks: names of the tasks.
    """

    def __init__(self, tasks: Mapping[str, Iterable[str]], settings: Decontamination) -> None:
        self.tasks = tuple(tasks)
        lengths = range(min(settings.shortest, settings.ngram), settings.ngram + 1)
        found: dict[int, list[tuple[Hashes, int]]] = {n: [] for n in lengths}
        for number, questions in enumerate(tasks.values()):
            for batch in batches(questions):
                text = words(batch)
                for n in lengths:
                    hashes = ngrams(text, n).hashes if n == settings.ngram else wholes(text, n)[1]
                    found[n].append((np.unique(hashes), number))
        # For each length the hashes in order, and the task of each.
        self._sought = {n: _sorted(parts) for n, parts in found.items() if any(len(h) for h, _ in parts)}

    def found(self, text: Words) -> dict[int, set[str]]:
        """The tasks that each contaminated text speaks of, by the text's number."""
        contaminated: dict[int, set[str]] = {}
        for n, (sought, task) in self._sought.items():
            grams = ngrams(text, n)
            first = np.searchsorted(sought, grams.hashes)
            hits = np.flatnonzero(sought[np.minimum(first, len(sought) - 1)] == grams.hashes)
            owners = np.searchsorted(grams.starts, hits, side="right") - 1
            last = np.searchsorted(sought, grams.hashes[hits], side="right")
            for owner, begin, end in zip(owners.tolist(), first[hits], last, strict=True):
                contaminated.setdefault(owner, set()).update(self.tasks[t] for t in task[begin:end])
        return contaminated


def _sorted(parts: list[tuple[Hashes, int]]) -> tuple[Hashes, NDArray[np.int64]]:
    hashes = np.concatenate([found for found, _ in parts])
    tasks = np.repeat([number for _, number in parts], [len(found) for found, _ in parts])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], tasks[order]
