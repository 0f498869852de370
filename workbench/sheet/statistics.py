"""Intervals and paired tests for scores that are ratios of sums over items.

A score is x = sum(numerators) / sum(denominators) over its items (questions, windows of text), and
then x itself, exp(x) (perplexity) or x / ln 2 (bits per byte); or it is the average precision of a ranking.

Items are independent, or come in clusters: one question asked in 18 styles is not 18 questions. Then what is
drawn again are clusters with all their items. The percentile interval is too short where clusters are few,
and is widened as Student's t is against the normal; p follows it. Where all clusters agree it has no width;
then Wilson's interval stands, as if each cluster were one item.

Source:
    E. B. Wilson (1927), the score interval of one proportion.
    Q. McNemar (1947), in its exact binomial form, the test of two paired proportions.
    R. G. Newcombe (1998), Statistics in Medicine 17:2635, method 10, the interval of their difference.
    Student (1908), Biometrika 6:1, the t interval of a mean of few.
    B. Efron and R. Tibshirani (1993), chapter 13, the percentile interval of the bootstrap.
    C. Field and A. Welsh (2007), J. R. Statist. Soc. B 69:369, the cluster bootstrap.
    T. Hesterberg (2015), The American Statistician 69:371, section 3.3, the expanded percentile interval.
    S. Holm (1979), Scandinavian Journal of Statistics 6:65, correction for many tests.

Letters: n items, k scores, C clusters, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    """Turn sums over items into scores; NaN of nothing, infinity for a perplexity too large for a float."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x = np.asarray(numerator / denominator)
        if aggregation == "perplexity":
            return np.asarray(np.exp(x))
        if aggregation == "bits_per_byte":
            return x / math.log(2)
        return x


def wilson(successes: float, n: int) -> Interval:
    """Score interval of a proportion; never empty at 0 or 1 and never outside of [0, 1]."""
    share, z = successes / n, float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    return Interval(min(max(low, 0.0), share), max(min(high, 1.0), share))


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
    return np.concatenate([counts @ values for counts in _drawn(len(values), seed, len(values))])


def resampled_precisions(
    scores: Array, labels: Array, owners: NDArray[np.int64] | None, seed: Sequence[int]
) -> Array:
    """Average precision in each resample; the draws are those of `resampled_sums` under the same seed.

    Args:
        scores: [n], the higher the likelier positive.
        labels: [n], above 0 of a positive, below of a negative, 0 of an item that says nothing.
        owners: [n], the cluster of each item, which is what is drawn; None where items are independent.
        seed: entropy of the generator.

    Returns:
        [R]; NaN where no positive was drawn.
    """
    clusters = np.arange(len(scores)) if owners is None else owners
    told = np.flatnonzero(labels)
    order = told[np.argsort(-scores[told], kind="stable")]  # [m], of items that say something
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # no threshold parts equal scores
    positive = labels[order] > 0
    found = []
    for counts in _drawn(int(clusters.max()) + 1, seed, len(scores)):
        weights = counts[:, clusters[order]]  # [rows, m]
        taken = weights.cumsum(1)[:, ends]
        right = (weights * positive).cumsum(1)[:, ends]
        rises = np.diff(right, axis=1, prepend=0)
        with np.errstate(invalid="ignore"):
            found.append((rises * right / np.maximum(taken, 1)).sum(1) / right[:, -1])
    return np.concatenate(found)


def _drawn(n: int, seed: Sequence[int], cells: int) -> Iterator[NDArray[np.int64]]:
    """How often each of n is in each of R resamples, some at a time, so that `cells` of each fit memory."""
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // max(n, cells))
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]  # [rows, n]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def by_cluster(values: Array, owners: NDArray[np.int64]) -> Array:
    """Sums of the rows of each cluster.

    Args:
        values: [n, k].
        owners: [n], the cluster of each row, 0 to C - 1.

    Returns:
        [C, k].
    """
    sums = np.zeros((int(owners.max()) + 1, values.shape[1]))
    np.add.at(sums, owners, values)
    return sums


def percentile_interval(distribution: Array, clusters: int | None = None) -> Interval:
    """Central 95 % of a bootstrap distribution [R]; wider where it is one of so many clusters, above 1."""
    distribution = distribution[~np.isnan(distribution)]
    tail = (1 - CONFIDENCE) / 2
    if clusters is not None:
        reach = float(stats.t.ppf(1 - tail, clusters - 1))
        tail = float(stats.norm.cdf(-math.sqrt(clusters / (clusters - 1)) * reach))
    # An interpolated quantile of infinities would be NaN, hence order statistics.
    low, high = np.quantile(distribution, [tail, 1 - tail], method="closest_observation")
    return Interval(float(low), float(high))


def bootstrap_p(differences: Array, clusters: int | None = None) -> float:
    """Two-sided p of "no difference": twice the smaller tail beyond 0 of a distribution [R].

    Of clusters it is below 0.05 just where their interval does not hold 0.
    """
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    p = float(min(1.0, 2 * (tail + 1) / (differences.size + 1)))
    if clusters is None or p == 1:
        return p
    score = float(stats.norm.ppf(p / 2)) * math.sqrt((clusters - 1) / clusters)
    return 2 * float(stats.t.cdf(score, clusters - 1))


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
