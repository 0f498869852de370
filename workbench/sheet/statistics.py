"""Intervals and paired tests for scores that are ratios of sums over items.

A score is x = sum(numerators) / sum(denominators) over its items (questions, windows of text), and
then x itself, exp(x) (perplexity) or x / ln 2 (bits per byte). Items are taken as independent.

Source:
    E. B. Wilson (1927), the score interval of one proportion.
    Q. McNemar (1947), in its exact binomial form, the test of two paired proportions.
    R. G. Newcombe (1998), Statistics in Medicine 17:2635, method 10, the interval of their difference.
    Student (1908), Biometrika 6:1, the t interval of a mean of few.
    B. Efron and R. Tibshirani (1993), chapter 13, the percentile interval of the bootstrap.
    S. Holm (1979), Scandinavian Journal of Statistics 6:65, correction for many tests.

Letters: n items, k scores, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workbench.evaluation.measurement import Aggregation

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_CELLS_AT_ONCE = 4_000_000  # resampled counts held in memory at a time


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies in [-margin, margin]."""
        return -margin <= self.low and self.high <= margin


def aggregate(numerator: Array, denominator: Array, aggregation: Aggregation) -> Array:
    """Turn sums over items into scores; a perplexity too large for a float becomes infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.asarray(numerator / denominator)
        if aggregation == "perplexity":
            return np.asarray(np.exp(x))
        if aggregation == "bits_per_byte":
            return x / math.log(2)
        return x


def wilson(successes: int, n: int) -> Interval:
    """Score interval of a proportion; never empty at 0 or 1 and never outside of [0, 1]."""
    found = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


def student(values: Sequence[float]) -> Interval:
    """Interval of the mean of at least two values that are taken as normal: mean ± t s / sqrt(n)."""
    n, mean = len(values), float(np.mean(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean - half, mean + half)


def resampled_sums(values: Array, seed: Sequence[int]) -> Array:
    """Sums of rows drawn with replacement; all columns share the draws, so columns stay paired.

    Args:
        values: [n, k], one row an item.
        seed: entropy of the generator.

    Returns:
        [R, k].
    """
    n, k = values.shape
    generator = np.random.default_rng(seed)
    sums = np.empty((RESAMPLES, k))
    step = max(1, _CELLS_AT_ONCE // n)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]  # [rows, n]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums[start : start + rows] = counts @ values
    return sums


def percentile_interval(distribution: Array) -> Interval:
    """Central 95 % of a bootstrap distribution [R]."""
    tail = (1 - CONFIDENCE) / 2
    # An interpolated quantile of infinities would be NaN, hence order statistics.
    low, high = np.quantile(distribution, [tail, 1 - tail], method="closest_observation")
    return Interval(float(low), float(high))


def bootstrap_p(differences: Array) -> float:
    """Two-sided p of "no difference": twice the smaller tail beyond 0 of a distribution [R]."""
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return float(min(1.0, 2 * (tail + 1) / (differences.size + 1)))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p that both are right equally often, from the items only one got right."""
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> Interval:
    """Interval of the difference (first minus second) of two paired proportions."""
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    p1, p2 = first / n, second / n
    i1, i2 = wilson(first, n), wilson(second, n)
    # Correlation of the two, towards zero by Newcombe's continuity correction where it is positive.
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    margins = math.sqrt(float(first) * (n - first) * second * (n - second))
    phi = covariance / margins if margins else 0.0
    return Interval(
        p1 - p2 - _square_and_add(p1 - i1.low, i2.high - p2, phi),
        p1 - p2 + _square_and_add(i1.high - p1, p2 - i2.low, phi),
    )


def _square_and_add(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that control the chance of any false finding in the family."""
    m = len(p_values)
    adjusted = [0.0] * m
    largest = 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
