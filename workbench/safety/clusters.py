"""Rates over prompts that come in clusters: their interval, and the paired difference of two of them.

One base question asked in 18 styles is not 18 independent questions, so what is drawn again are base
questions with all their rows: the cluster bootstrap. Its percentile interval is too short where clusters are
few, and is widened as Student's t is against the normal. Where all clusters agree it has no width; then
Wilson's interval stands, as if each cluster were one question.

Source:
    C. Field and A. Welsh (2007), J. R. Statist. Soc. B 69:369, the cluster bootstrap.
    T. Hesterberg (2015), The American Statistician 69:371, section 3.3, the expanded percentile interval.
    E. B. Wilson (1927), the score interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workbench.errors import DataError

RESAMPLES = 10_000
_Z = 1.959963984540054  # two-sided 95 % of the normal distribution
_CELLS_AT_ONCE = 4_000_000  # resampled counts held in memory at a time


@dataclass(frozen=True)
class Outcome:
    """One answer's part in a rate: a value in [0, 1], or None where it is missing."""

    id: str
    base_id: str
    value: float | None


@dataclass(frozen=True)
class Rate:
    """A mean of outcomes.

    Attributes:
        value: in [0, 1].
        low: lower end of the 95 % interval.
        high: upper end.
        n: answers in it.
        clusters: base questions that they come from.
        missing: answers without a verdict, which are not in it.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    missing: int = 0


@dataclass(frozen=True)
class Difference:
    """Second minus first over the answers that both have; see `Rate`."""

    value: float
    low: float
    high: float
    n: int
    clusters: int
    missing: int


def rate(outcomes: Sequence[Outcome], seed: int = 0) -> Rate:
    """The mean of the outcomes that are not missing, with its clustered interval.

    Raises:
        DataError: there is none.
    """
    known = [(o.base_id, o.value) for o in outcomes if o.value is not None]
    if not known:
        raise DataError(f"no rate: all {len(outcomes)} outcomes are missing; it needs one judged answer")
    value, low, high, clusters = _clustered(known, seed)
    if low == high:
        low, high = wilson(value, clusters)
    return Rate(value, low, high, len(known), clusters, len(outcomes) - len(known))


def difference(first: Sequence[Outcome], second: Sequence[Outcome], seed: int = 0) -> Difference:
    """How much more the second row's rate is, from answers to the same prompts.

    Args:
        first: outcomes of the parent.
        second: outcomes of the row, paired by id. A pair with a side missing or absent leaves.
        seed: of the resampling.

    Raises:
        DataError: no answer is in both, or an id stands for different base questions.
    """
    before = {o.id: o for o in first}
    after = {o.id: o for o in second}
    known = []
    for name in before.keys() & after.keys():
        one, other = before[name], after[name]
        if one.base_id != other.base_id:
            raise DataError(
                f"row {name!r}: its base question is {one.base_id!r} in the first and {other.base_id!r} in "
                "the second; compare rows of the same prompts"
            )
        if one.value is not None and other.value is not None:
            known.append((one.base_id, other.value - one.value))
    if not known:
        raise DataError("no difference: no answer is judged in both rows; compare rows of the same prompts")
    value, low, high, clusters = _clustered(sorted(known), seed)
    if low == high:
        reach = wilson(0, clusters)[1]
        low, high = max(value - reach, -1.0), min(value + reach, 1.0)
    return Difference(value, low, high, len(known), clusters, len(before.keys() | after.keys()) - len(known))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Score interval of a share of n; it has width at 0 and 1 too, and never leaves [0, 1]."""
    centre = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + _Z**2 / n), (centre + half) / (1 + _Z**2 / n)
    return min(max(low, 0.0), share), max(min(high, 1.0), share)


def _clustered(known: Sequence[tuple[str, float]], seed: int) -> tuple[float, float, float, int]:
    """Mean of values, its 95 % interval by the cluster bootstrap, and how many clusters there are."""
    names, owner = np.unique([name for name, _ in known], return_inverse=True)
    sums: NDArray[np.float64] = np.stack(
        [np.bincount(owner, [value for _, value in known]), np.bincount(owner)], axis=1
    )  # [clusters, 2]: sum of values, answers
    value, n = float(sums[:, 0].sum() / sums[:, 1].sum()), len(names)
    if n == 1:
        return value, value, value, n
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    means = _resampled(sums, np.random.default_rng([seed, len(known)]))
    low, high = np.quantile(means, [tail, 1 - tail], method="closest_observation")
    return value, float(low), float(high), n


def _resampled(sums: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Means over clusters drawn with replacement: [R]."""
    clusters = len(sums)
    step = max(1, _CELLS_AT_ONCE // clusters)
    means = []
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = generator.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        totals = counts @ sums  # [rows, 2]
        means.append(totals[:, 0] / totals[:, 1])
    return np.concatenate(means)
