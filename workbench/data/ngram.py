"""An n-gram language model of words, interpolated Kneser-Ney: a cheap judge of how text is written.

With c the count of an n-gram, N(. g) the number of different words before g, and N(h .) of those after h,

    P(w | h) = max(a(h w) - D, 0) / sum_w a(h w) + D N(h .) / sum_w a(h w) * P(w | h')

where h' is h without its first word and a is c at the highest order, N(. h w) below it. Below the
unigrams all words, and one that stands for every unknown word, are equally likely. One discount an
order, D = n1 / (n1 + 2 n2), n1 and n2 the numbers of n-grams with a = 1 and a = 2. A text begins with
n - 1 marks that are never predicted and ends with one that is.

The n-grams are a trie in sorted arrays: the key of an n-gram is the index of its first n - 1 words
among the (n - 1)-grams and the number of its last word, so looking up is a binary search.

Source: Kneser & Ney 1995; Chen & Goodman 1999, section 2.7 (equations 13 and 17), interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.data.tokens import batches
from workbench.data.words import Hashes, Words, words

Index = NDArray[np.int64]
Real = NDArray[np.float64]

UNKNOWN, BEGIN, END = 0, 1, 2  # numbers of the words that no text spells
ABSENT = -1
# Where no n-gram has been seen once, or none twice, the estimate of D means nothing.
FALLBACK_DISCOUNT = 0.5


@dataclass(frozen=True)
class Order:
    """The k-grams of one order k, K of them, and what the (k - 1)-grams before them need.

    Attributes:
        keys: [K] int64, sorted; index of the first k - 1 words shifted by 32 bits, and the last word.
        counts: [K] float64, a; 0 where the last word is a mark of the beginning.
        discount: D.
        totals: [K'] float64 over the (k - 1)-grams, sum of a of those that go on from it.
        types: [K'] float64, how many different words go on from it.
    """

    keys: Index
    counts: Real
    discount: float
    totals: Real
    types: Real


@dataclass(frozen=True)
class Level:
    """The n-grams of one length that T words hold, K different ones.

    Attributes:
        keys: [K] as in `Order`.
        places: [K], where each ends for the first time.
        index: [T], which one ends at each place; ABSENT where none does.
    """

    keys: Index
    places: Index
    index: Index


class NgramModel:
    """The model; made by `fit`.

    Attributes:
        vocabulary: [V] uint64, sorted hashes of the known words; word number 3 + i.
        orders: from the unigrams up.
    """

    def __init__(self, vocabulary: Hashes, orders: Sequence[Order]) -> None:
        self.vocabulary = vocabulary
        self.orders = tuple(orders)

    def perplexity(self, text: Words) -> Real:
        """Perplexity of each text per word, its end included: [D] float64; from 1 up, low is good."""
        place = np.searchsorted(self.vocabulary[:-1], text.hashes)
        known = self.vocabulary[place] == text.hashes if len(self.vocabulary) else place < 0
        numbers = np.where(known, place + 3, UNKNOWN)
        numbers, predicted, owner = _marked(numbers, text.counts, len(self.orders))
        nats = -np.log(self.probabilities(numbers, predicted))
        sums = np.bincount(owner[predicted], weights=nats, minlength=len(text.counts))
        return np.exp(sums / np.bincount(owner[predicted]))

    def probabilities(self, numbers: Index, predicted: Index) -> Real:
        """P of the words at the places `predicted`, each after the n - 1 words before it.

        Args:
            numbers: [T] words by number.
            predicted: [M] places, each with at least n - 1 places of its text before it.
        """
        probability: Real = np.full(
            len(predicted), 1 / (len(self.vocabulary) + 2)
        )  # and unknown, and the end
        context: Index = np.zeros(len(predicted), np.int64)  # of no words: there is one
        contexts: Index = np.zeros(len(numbers), np.int64)
        for order in self.orders:
            found = _find(order.keys, contexts, numbers)
            known = (context != ABSENT) & (order.totals[context] > 0)
            at, place = context[known], found[predicted[known]]
            seen = np.where(place == ABSENT, 0, order.counts[place])
            own = np.maximum(seen - order.discount, 0) / order.totals[at]
            rest = order.discount * order.types[at] / order.totals[at]
            probability[known] = own + rest * probability[known]
            contexts = np.concatenate(([ABSENT], found[:-1]))
            context = contexts[predicted]
        return probability


def fit(texts: Iterable[str], order: int) -> NgramModel:
    """Count texts into a model of n-grams up to `order` words; holds all of their words in memory."""
    parts = [words(batch) for batch in batches(texts)]
    hashes = np.concatenate([part.hashes for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    vocabulary = np.unique(hashes)
    numbers, predicted, _ = _marked(np.searchsorted(vocabulary, hashes) + 3, counts, order)
    whole = np.zeros(len(numbers), bool)  # places whose k words belong to one text
    whole[predicted] = True
    before = np.cumsum(~whole) - np.maximum.accumulate(np.where(whole, np.cumsum(~whole), 0))

    contexts: Index = np.zeros(len(numbers), np.int64)
    levels: list[Level] = []
    sizes = [1]
    for k in range(1, order + 1):
        inside = np.flatnonzero(whole | (before >= k))
        keys, first, index = np.unique(
            contexts[inside] << 32 | numbers[inside], return_index=True, return_inverse=True
        )
        found: Index = np.full(len(numbers), ABSENT)
        found[inside] = index
        levels.append(Level(keys, inside[first], found))
        contexts = np.concatenate(([ABSENT], found[:-1]))
        sizes.append(len(keys))
    return NgramModel(vocabulary, [_order(levels, sizes, k, whole) for k in range(order)])


def _order(levels: list[Level], sizes: list[int], k: int, whole: NDArray[np.bool_]) -> Order:
    """Order k + 1 from its level: each n-gram counts once a place at the top, below once a longer n-gram."""
    keys, found = levels[k].keys, levels[k].index
    at = np.arange(len(whole)) if k + 1 == len(levels) else levels[k + 1].places
    counts = np.bincount(found[at[whole[at]]], minlength=len(keys)).astype(np.float64)
    context = keys >> 32
    totals: Real = np.bincount(context, weights=counts, minlength=sizes[k]).astype(np.float64)
    types: Real = np.bincount(context[counts > 0], minlength=sizes[k]).astype(np.float64)
    return Order(keys, counts, _discount(counts), totals, types)


def _discount(counts: Real) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else FALLBACK_DISCOUNT


def _find(keys: Index, contexts: Index, numbers: Index) -> Index:
    """Index of each n-gram among `keys`, ABSENT where there is none or none of its context."""
    wanted = contexts << 32 | numbers
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((contexts != ABSENT) & (keys[place] == wanted), place, ABSENT)


def _marked(numbers: Index, counts: Index, order: int) -> tuple[Index, Index, Index]:
    """Put order - 1 marks before each text and one behind it.

    Returns:
        Numbers [T]; predicted places, all but the marks before a text; [T] the text of each place.
    """
    sizes = counts + order
    owner = np.repeat(np.arange(len(counts)), sizes)
    ends = np.cumsum(sizes)
    place = np.arange(len(owner)) - (ends - sizes)[owner]
    marked = np.full(len(owner), BEGIN)
    marked[ends - 1] = END
    marked[(place >= order - 1) & (place < (sizes - 1)[owner])] = numbers
    return marked, np.flatnonzero(place >= order - 1), owner
