"""The sheet as a record: rows, scores, comparisons, to JSON and back; `assembly` makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workbench.evaluation.measurement import Measurement
from workbench.sheet import status
from workbench.sheet.compare import Comparison
from workbench.sheet.statistics import Interval
from workbench.sheet.status import Status
from workbench.sheet.wording import Unit, split

SCHEMA = "workbench.sheet/1"


@dataclass(frozen=True)
class RowInput:
    """What a run knows of one model variant before anything is concluded from it.

    `seeds` holds the score under each seed by metric, in order of the seeds, where there are several.
    """

    variant: str
    parent: str | None
    stage: str
    method: str
    settings: dict[str, Any]
    nominal_bits: float | None
    real_bits: float | None
    disk_bytes: int | None
    measurements: list[Measurement]
    seconds: float | None
    peak_memory_bytes: int | None
    tokens_per_second: float | None
    warnings: list[str] = field(default_factory=list)
    seeds: dict[str, list[float]] = field(default_factory=dict)
    trainable_parameters: int | None = None
    against: str | None = None  # one more row to compare with


@dataclass(frozen=True)
class Curve:
    """Probes and loss during the training of one variant.

    Each point: {"step", "tokens", "probe": {metric: value}, "loss"}; probe and loss may be absent. Where
    there are several seeds, `points` are the means over them and `seeds` holds the points of each.
    """

    variant: str
    points: list[dict[str, Any]]
    seeds: list[list[dict[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class Metric:
    """One score of one row; None stands for a number that is not finite or cannot be known.

    `ci` says how far other questions might move the score of these weights; `seeds_ci`, the interval of
    the mean over seeds, how far another training might. `chance`, the score of guessing, serves the
    status and the plots, and is not part of sheet.json.
    """

    value: float | None
    stderr: float | None
    ci: Interval | None
    n: int
    higher_is_better: bool
    protocol: str
    chance: float | None = None
    seeds: list[float | None] = field(default_factory=list)  # under each seed; empty where there is one
    seeds_ci: Interval | None = None


@dataclass(frozen=True)
class Row:
    """One model variant and everything that was measured of it."""

    variant: str
    parent: str | None
    stage: str
    method: str
    settings: dict[str, Any]
    nominal_bits: float | None
    real_bits: float | None
    disk_bytes: int | None
    metrics: dict[str, Metric]
    seconds: float | None
    peak_memory_bytes: int | None
    tokens_per_second: float | None
    status: Status
    warnings: list[str]
    trainable_parameters: int | None = None
    against: str | None = None


@dataclass(frozen=True)
class Sheet:
    """All rows of a run and their comparisons; drawings take everything from here."""

    recipe: str
    rows: list[Row]
    comparisons: list[Comparison]

    def row(self, variant: str) -> Row:
        """The row of a variant."""
        return next(row for row in self.rows if row.variant == variant)

    def origin(self, row: Row) -> Row | None:
        """What the row's gains and losses are told against, as far as it is a row of the sheet."""
        return status.origin(row, {other.variant: other for other in self.rows})

    def metric_keys(self) -> list[str]:
        """All metrics in order of first appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row.metrics))

    def unit(self, metric: str) -> Unit:
        """How the metric's scores and differences are said."""
        return unit_of(metric, (row.metrics[metric].value for row in self.rows if metric in row.metrics))

    @property
    def seeded(self) -> bool:
        """Whether any score was taken under several seeds."""
        return any(metric.seeds for row in self.rows for metric in row.metrics.values())

    def sign(self, metric: str) -> int:
        """1 where more of the metric is better, -1 where less is."""
        known = next(row.metrics[metric] for row in self.rows if metric in row.metrics)
        return 1 if known.higher_is_better else -1

    def against(self, variant: str, other: str | None) -> dict[str, Comparison]:
        """The comparisons of a row with another, by metric."""
        return {c.metric: c for c in self.comparisons if c.variant == variant and c.against == other}

    def to_json(self) -> dict[str, Any]:
        """The record: JSON-able, one schema for every run.

        Beyond the schema's first fields: `seeds` and `seeds_ci` of a metric, `trainable_parameters` and
        `against` of a row. `from_json` reads records without them.
        """
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            for metric in row["metrics"].values():
                del metric["chance"]
                metric["ci"], metric["seeds_ci"] = _pair(metric["ci"]), _pair(metric["seeds_ci"])
        comparisons = [asdict(found) for found in self.comparisons]
        for found in comparisons:
            found["ci"] = _pair(found["ci"])
        return {"schema": SCHEMA, "recipe": self.recipe, "rows": rows, "comparisons": comparisons}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Sheet:
        """Read a record back.

        Raises:
            ValueError: the record has another schema.
        """
        if record.get("schema") != SCHEMA:
            raise ValueError(f"a sheet with schema {record.get('schema')!r}; this version reads {SCHEMA!r}")
        rows = []
        for row in record["rows"]:
            metrics = {key: Metric(**_interval(metric)) for key, metric in row["metrics"].items()}
            rows.append(Row(**{**row, "metrics": metrics}))
        comparisons = [Comparison(**_interval(found)) for found in record["comparisons"]]
        return cls(record["recipe"], rows, comparisons)


def _pair(interval: dict[str, float] | None) -> list[float] | None:
    return [interval["low"], interval["high"]] if interval else None


def _interval(record: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: record[name] and Interval(*record[name]) for name in ("ci", "seeds_ci") if name in record}
    return {**record, **found}


def unit_of(metric: str, values: Iterable[float | None]) -> Unit:
    """How the scores of a metric are said: as shares where all lie in [0, 1]."""
    name = split(metric)[2]
    if "bits_per_byte" in name:
        return "bits"
    if "perplexity" in name or name == "fertility":
        return "ratio"
    return "share" if all(value is None or 0 <= value <= 1 for value in values) else "ratio"


def check_expectations(sheet: Sheet, expect: Mapping[str, tuple[float, float]]) -> list[str]:
    """Hold scores against measured ranges.

    Args:
        sheet: the sheet.
        expect: ranges by "<variant>.<metric>"; the metric is a key of the row's metrics.

    Returns:
        One sentence for each range that is not met; empty when all are.
    """
    failures = []
    for name, (low, high) in expect.items():
        metric = expected_metric(sheet, name)
        if metric is None:
            known = ", ".join(f"{row.variant}.{key}" for row in sheet.rows for key in row.metrics)
            failures.append(f"{name}: nothing was measured under this name; measured: {known}")
        elif metric.value is None or not low <= metric.value <= high:
            found = "not finite" if metric.value is None else f"{metric.value:.6g}"
            failures.append(f"{name} is {found}, expected {low:g} to {high:g}")
    return failures


def expected_metric(sheet: Sheet, name: str) -> Metric | None:
    """The score that "<variant>.<metric>" names; variants and tasks may themselves hold dots."""
    for row in sheet.rows:
        key = name.removeprefix(f"{row.variant}.")
        if key != name and key in row.metrics:
            return row.metrics[key]
    return None
