"""The items behind each score, brought into one order so that rows can be compared item by item."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from workbench.evaluation.measurement import Measurement
from workbench.sheet import statistics
from workbench.sheet.statistics import Array, Interval


@dataclass(frozen=True)
class Sample:
    """The items of one row and metric, sorted by id.

    `draws` is the score in each bootstrap resample [R], None where a closed form serves: items of
    0 or 1, and fewer than two items or clusters, of which nothing can be said.
    """

    measurement: Measurement
    ids: tuple[str, ...]
    numerators: Array  # [n]
    denominators: Array  # [n]
    value: float | None  # None when the score is not a finite number
    owners: tuple[int, ...] | None = None  # [n], the cluster of each item; None where items are independent
    draws: Array | None = None

    @property
    def n(self) -> int:
        """Number of items that say something."""
        return int(np.count_nonzero(self.denominators))

    @property
    def clusters(self) -> int | None:
        """Number of clusters; None where items are independent."""
        return None if self.owners is None else max(self.owners) + 1

    @property
    def binary(self) -> bool:
        """Whether every item is simply right or wrong, and on its own."""
        return bool(
            self.measurement.aggregation == "mean"
            and self.owners is None
            and np.all(self.denominators == 1)
            and np.all((self.numerators == 0) | (self.numerators == 1))
        )

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the score: Wilson for items of 0 or 1, else the percentile bootstrap."""
        if self.value is None:
            return None
        if self.draws is not None:
            interval = statistics.percentile_interval(self.draws, self.clusters)
            if self.clusters is not None and interval.low == interval.high and 0 <= self.value <= 1:
                return statistics.wilson(self.value * self.clusters, self.clusters)
            return interval if math.isfinite(interval.high) else None
        return statistics.wilson(int(self.numerators.sum()), self.n) if self.binary else None

    @property
    def stderr(self) -> float | None:
        """Standard error: sample standard deviation / sqrt(n) for items of 0 or 1, else of the bootstrap."""
        if self.value is None or self.n < 2:
            return None
        if self.draws is not None:
            error = float(np.nanstd(self.draws))
            return error if math.isfinite(error) else None
        return math.sqrt(self.value * (1 - self.value) / (self.n - 1))


def read(measurement: Measurement) -> Sample:
    """Sort a measurement's items by id.

    Raises:
        ValueError: the measurement has no items.
    """
    if not measurement.items:
        raise ValueError(f"{measurement.key}: a measurement without items")
    ids = tuple(sorted(measurement.items))
    pairs = np.array([measurement.items[name] for name in ids], dtype=np.float64)  # [n, 2]
    value = measurement.value
    owners = None
    if measurement.clusters is not None:
        numbered = np.unique([measurement.clusters[name] for name in ids], return_inverse=True)[1]
        owners = tuple(numbered.tolist())
    return Sample(measurement, ids, pairs[:, 0], pairs[:, 1], value if math.isfinite(value) else None, owners)


def resample(samples: Mapping[str, Sample], seed: int) -> dict[str, Sample]:
    """Bootstrap the samples of one metric, given by row; rows with the same items share the draws."""
    drawn = dict(samples)
    if all(sample.binary for sample in samples.values()):
        return drawn
    several = [sample for sample in samples.values() if (sample.clusters or len(sample.ids)) > 1]
    for items in {(sample.ids, sample.owners) for sample in several}:
        rows = [row for row, s in samples.items() if (s.ids, s.owners) == items and s.value is not None]
        if not rows:
            continue
        key = zlib.crc32(samples[rows[0]].measurement.key.encode())
        owners = None if items[1] is None else np.array(items[1])
        for row in [row for row in rows if samples[row].measurement.aggregation == "average_precision"]:
            sample = samples[row]
            scores = statistics.resampled_precisions(
                sample.numerators, sample.denominators, owners, (seed, key)
            )
            drawn[row] = replace(sample, draws=scores)
            rows.remove(row)
        if not rows:
            continue
        columns = [part for row in rows for part in (samples[row].numerators, samples[row].denominators)]
        values = np.column_stack(columns)  # [n, 2 * rows]
        if owners is not None:
            values = statistics.by_cluster(values, owners)
        sums = statistics.resampled_sums(values, (seed, key))  # [R, 2 * rows]
        for column, row in enumerate(rows):
            numerator, denominator = sums[:, 2 * column], sums[:, 2 * column + 1]
            scores = statistics.aggregate(numerator, denominator, samples[row].measurement.aggregation)
            drawn[row] = replace(samples[row], draws=scores)
    return drawn
