"""Which words of two languages say the same, learnt from sentences that do.

IBM Model 1 (Brown et al. 1993, "The Mathematics of Statistical Machine Translation", section 4.1): every
new word f of a sentence is the translation of one old word e of its twin, or of the empty word, each
with the same chance. t(f | e) is found by expectation and maximization:

    p(e | f) = t(f | e) / sum over e' of the twin of t(f | e')
    c(f, e)  = sum over the sentences of p(e | f),   t(f | e) = c(f, e) / sum over f' of c(f', e)

A word is the tuple of the tokens that it is written with. What aligns with a token is read off the words
in which it stands (after Remy et al., arXiv 2408.04303): token i of n covers the stretch i/n..(i+1)/n of
its word, and takes from the old word the tokens of the same stretch, as far as they overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError

Word = tuple[int, ...]
Sentence = Sequence[Word]
EMPTY: Word = ()
FAINT = 1e-3  # expected times that two words are twins, below which they are not


def align(old: Sequence[Sentence], new: Sequence[Sentence], rounds: int) -> dict[tuple[Word, Word], float]:
    """Expected times c(f, e) that a new word f translates an old word e.

    Args:
        old: sentences of words.
        new: their twins, one for one.
        rounds: of expectation and maximization, from a uniform t.

    Raises:
        DataError: not as many sentences on both sides, or none.
    """
    if len(old) != len(new) or not old:
        raise DataError(
            f"alignment: {len(old)} documents in the old language, {len(new)} in the new one; parallel text "
            "has the same documents in the same order on both sides, at least one"
        )
    known: dict[tuple[Word, Word], int] = {}  # (f, e) -> its number
    pair_list: list[int] = []  # [P], for every f of every sentence and every e of its twin, their number
    place_list: list[int] = []  # [P], which occurrence of a new word that is
    place = 0
    for one, other in zip(old, new, strict=True):
        for f in other:
            for e in (EMPTY, *one):
                pair_list.append(known.setdefault((f, e), len(known)))
                place_list.append(place)
            place += 1
    sources = {e: number for number, e in enumerate(dict.fromkeys(e for _, e in known))}
    source = np.array([sources[e] for _, e in known])  # [K]
    pairs, places = np.array(pair_list), np.array(place_list)
    t: NDArray[np.float64] = np.ones(len(known))
    counts = t
    for _ in range(rounds):
        chance: NDArray[np.float64] = t[pairs]  # [P], p(e | f)
        chance = chance / np.bincount(places, chance)[places]
        counts = np.bincount(pairs, chance, minlength=len(known)).astype(np.float64)  # [K]
        t = counts / np.bincount(source, counts)[source]
    return {
        pair: float(count)
        for pair, count in zip(known, counts, strict=True)
        if pair[1] != EMPTY and count >= FAINT
    }


def token_shares(counts: Mapping[tuple[Word, Word], float], size: int) -> list[dict[int, float]]:
    """For each of `size` new tokens, the shares of the old tokens that it aligns with; they sum to 1."""
    weights: list[dict[int, float]] = [{} for _ in range(size)]
    for (f, e), count in counts.items():
        n, m = len(f), len(e)
        for i, v in enumerate(f):
            for j in range(i * m // n, -(-(i + 1) * m // n)):
                overlap = min((i + 1) / n, (j + 1) / m) - max(i / n, j / m)
                weights[v][e[j]] = weights[v].get(e[j], 0.0) + count * overlap
    return [{u: weight / sum(found.values()) for u, weight in found.items()} for found in weights]
