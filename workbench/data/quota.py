"""How many of the first n samples each source has given: weights rounded to whole samples without drift.

Rounding every source by itself fails: either the counts do not add up to n, or a source with a small
share would have to take samples back. So the sources share as in a tournament bracket. The samples are
split between two halves of the list, each half splits its own between quarters, down to single sources.
At one split, of the c samples that have arrived so far the left side has

    floor(sum_i ratio_i * c_i + 1/2),   ratio_i = left weight / (left + right weight), c = sum_i c_i,

where i runs over the stretches of constant weights; the right side has the rest. Because no ratio is
above 1, neither side ever loses a sample, and counts of n samples add up to n. The arithmetic is in
whole numbers, so it is exact and the same everywhere.

Drift. A split is off by at most 1/2 from its exact share. With constant weights a source of share w below
splits of shares 1 = W_0 > W_1 > ... is therefore off by at most 1/2 (1 + w / W_1 + w / W_2 + ...): below
one sample for up to 4 sources, below d / 2 for up to 2^d sources, however long the run. When weights
change, what is owed is carried over and nothing starts afresh.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

ONE = 1 << 62  # the whole of a share, in which ratios are counted


@dataclass(frozen=True)
class _Stretch:
    """Constant weights from sample `start` on; one entry per split."""

    start: int
    ratio: list[int]  # share of the left side, in 1 / ONE
    arrived: list[int]  # samples that had reached the split at `start`
    owed: list[int]  # what the left side had earned of them, in samples / ONE


class Quota:
    """Counts of samples per source, as a function of the number of samples alone."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Start with the given weights, one per source; at least one is above 0."""
        self._sources = len(weights)
        self._splits = list(_bracket(0, self._sources))
        none = [0] * len(self._splits)
        self._stretches = [_Stretch(0, self._ratios(weights), none, none)]

    def reweigh(self, start: int, weights: Sequence[float]) -> None:
        """Use other weights from sample `start` on, which is not before the last change."""
        arrived, owed, _ = self._state(start)
        self._stretches.append(_Stretch(start, self._ratios(weights), arrived, owed))

    def counts(self, n: int) -> list[int]:
        """Samples that each source has given after `n` samples of all; O(sources)."""
        return self._state(n)[2]

    def _ratios(self, weights: Sequence[float]) -> list[int]:
        exact = [Fraction(weight) for weight in weights]
        return [
            int(sum(exact[low:middle]) * ONE / total) if (total := sum(exact[low:high])) else 0
            for low, middle, high in self._splits
        ]

    def _state(self, n: int) -> tuple[list[int], list[int], list[int]]:
        stretch = self._stretches[bisect_right(self._stretches, n, key=lambda s: s.start) - 1]
        reached = {(0, self._sources): n}
        arrived, owed = [], []
        for split, (low, middle, high) in enumerate(self._splits):
            here = reached[low, high]
            earned = stretch.owed[split] + stretch.ratio[split] * (here - stretch.arrived[split])
            left = (earned + ONE // 2) // ONE
            reached[low, middle], reached[middle, high] = left, here - left
            arrived.append(here)
            owed.append(earned)
        return arrived, owed, [reached[source, source + 1] for source in range(self._sources)]


def _bracket(low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Splits of the sources low..high-1 into low..middle-1 and middle..high-1, parents first."""
    if high - low > 1:
        middle = (low + high + 1) // 2
        yield low, middle, high
        yield from _bracket(low, middle)
        yield from _bracket(middle, high)
