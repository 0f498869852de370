"""What one task or text says about one model, item by item, so that two models can be compared in pairs."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from workbench import storage

Aspect = Literal["new", "retained", "safety", "language"]
Aggregation = Literal["mean", "perplexity", "bits_per_byte", "average_precision"]


def value(items: Iterable[tuple[float, float]], aggregation: Aggregation) -> float:
    """Aggregate items of (numerator, denominator) through x = sum of numerators / sum of denominators.

    Items with a denominator of 0 say nothing; where all are such, x is NaN. mean is x; perplexity is exp(x)
    of nats over tokens, infinite where no float is large enough; bits_per_byte is x / ln 2 of nats over
    bytes.

    average_precision is no such ratio: a numerator is the score of an item, and its denominator 1 where the
    item is positive, -1 where it is negative.
    """
    pairs = list(items)
    if aggregation == "average_precision":
        return _average_precision(pairs)
    whole = math.fsum(denominator for _, denominator in pairs)
    x = math.fsum(numerator for numerator, _ in pairs) / whole if whole else math.nan
    if aggregation == "mean":
        return x
    if aggregation == "bits_per_byte":
        return x / math.log(2)
    return math.inf if x >= math.log(sys.float_info.max) else math.exp(x)


def _average_precision(items: Sequence[tuple[float, float]]) -> float:
    """Sum over thresholds of precision times the rise of recall; NaN without a positive."""
    positives, found, taken, area = sum(label > 0 for _, label in items), 0, 0, 0.0
    told = sorted((pair for pair in items if pair[1]), key=lambda pair: -pair[0])
    for _, tied in groupby(told, key=lambda pair: pair[0]):  # no threshold parts equal scores
        labels = [label > 0 for _, label in tied]
        found, taken = found + sum(labels), taken + len(labels)
        area += found / taken * sum(labels)
    return area / positives if positives else math.nan


@dataclass(frozen=True)
class Measurement:
    """One cell of the sheet as raw material.

    Attributes:
        aspect: what the number speaks of.
        task: name of the task or text within its aspect.
        metric: as lm-eval spells it, or perplexity or bits_per_byte.
        items: id of the question or window -> (numerator, denominator); see `value`.
        aggregation: how items become one number.
        higher_is_better: direction of the metric.
        protocol: how it was measured; numbers of different protocols must not be compared.
        chance: value of a guesser, where the task has choices.
        clusters: id of an item -> name of what it is a form of, such as one question asked in many styles;
            None where items are independent.
    """

    aspect: Aspect
    task: str
    metric: str
    items: Mapping[str, tuple[float, float]]
    aggregation: Aggregation
    higher_is_better: bool
    protocol: str
    chance: float | None = None
    clusters: Mapping[str, str] | None = None

    @property
    def key(self) -> str:
        """Column of the sheet."""
        return f"{self.aspect}.{self.task}.{self.metric}"

    @property
    def value(self) -> float:
        """The aggregate over all items."""
        return value(self.items.values(), self.aggregation)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Measurement:
        """Inverse of `to_json`, also after a round trip through a file."""
        items = {name: (float(pair[0]), float(pair[1])) for name, pair in record["items"].items()}
        return cls(**{**record, "items": items})


def write(path: Path, measurements: Iterable[Measurement], samples: Iterable[Mapping[str, Any]] = ()) -> None:
    """Write the measurements of one task or text, and a record of each question, to one file."""
    written = [measurement.to_json() for measurement in measurements]
    storage.write_json(path, {"measurements": written, "samples": list(samples)})


def read(folder: Path) -> list[Measurement]:
    """All measurements of a row, from its files `<aspect>.<name>.json`, in the order of `Aspect`."""
    order = get_args(Aspect)
    return [
        Measurement.from_json(record)
        for path in sorted(folder.glob("*.*.json"), key=lambda p: (order.index(p.name.split(".")[0]), p.name))
        for record in storage.read_json(path)["measurements"]
    ]


def pool(by_seed: Mapping[int, Sequence[Measurement]]) -> list[Measurement]:
    """One measurement per key, of the items of all seeds; ids and clusters become "<seed>/<name>".

    Args:
        by_seed: what the same variant scored under each seed; one seed alone stays as it is. Questions and
            texts may be those of another world, so protocols may differ: the pooled one names them all.
            Of what has clusters, a seed may have drawn none to measure; the others are pooled.

    Raises:
        ValueError: the seeds do not measure the same, or aggregate it differently.
    """
    if len(by_seed) < 2:
        return [measurement for measurements in by_seed.values() for measurement in measurements]
    keyed = {seed: {found.key: found for found in measurements} for seed, measurements in by_seed.items()}
    first = next(iter(keyed))
    for seed, found in keyed.items():
        if lone := sorted(key for key in set(found) ^ set(keyed[first]) if not _may_lack(key, keyed)):
            raise ValueError(
                f"seeds {first} and {seed} do not measure the same: only one has {', '.join(lone)}"
            )
    every = dict.fromkeys(key for found in keyed.values() for key in found)
    return [
        _pooled(key, {seed: found[key] for seed, found in keyed.items() if key in found}) for key in every
    ]


def _may_lack(key: str, keyed: Mapping[int, Mapping[str, Measurement]]) -> bool:
    """Whether a seed may do without: of forms of questions, some seed may have drawn none to measure."""
    return all(found[key].clusters is not None for found in keyed.values() if key in found)


def _pooled(key: str, by_seed: Mapping[int, Measurement]) -> Measurement:
    first, measurement = next(iter(by_seed.items()))
    items: dict[str, tuple[float, float]] = {}
    clusters: dict[str, str] = {}
    for seed, found in by_seed.items():
        if _kind(found) != _kind(measurement):
            raise ValueError(
                f"{key}: seeds {first} and {seed} measure it differently: "
                f"{_kind(measurement)} and {_kind(found)}"
            )
        items |= {f"{seed}/{name}": pair for name, pair in found.items.items()}
        owners = found.clusters or {}
        clusters |= {f"{seed}/{name}": f"{seed}/{owner}" for name, owner in owners.items()}
    protocol = " | ".join(dict.fromkeys(found.protocol for found in by_seed.values()))
    return replace(measurement, items=items, protocol=protocol, clusters=clusters or None)


def _kind(measurement: Measurement) -> tuple[Aggregation, bool, float | None, bool]:
    clustered = measurement.clusters is not None
    return measurement.aggregation, measurement.higher_is_better, measurement.chance, clustered
