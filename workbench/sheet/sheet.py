"""The sheet: one row a model variant, every score with its interval, every row against its parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from workbench.evaluation.measurement import Measurement
from workbench.sheet import compare, samples, status, wording
from workbench.sheet.compare import Comparison
from workbench.sheet.samples import Sample
from workbench.sheet.statistics import Interval
from workbench.sheet.status import Status
from workbench.sheet.wording import Unit, split

SCHEMA = "workbench.sheet/1"


@dataclass(frozen=True)
class RowInput:
    """What a run knows of one model variant before anything is concluded from it."""

    variant: str
    parent: str | None
    stage: str
    method: str
    settings: dict[str, Any]
    nominal_bits: int | None
    real_bits: float | None
    disk_bytes: int | None
    measurements: list[Measurement]
    seconds: float | None
    peak_memory_bytes: int | None
    tokens_per_second: float | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Curve:
    """Probes and loss during the training of one variant.

    Each point: {"step", "tokens", "probe": {metric: value}, "loss"}; probe and loss may be absent.
    """

    variant: str
    points: list[dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """One score of one row; None stands for a number that is not finite or cannot be known.

    `chance`, the score of guessing, serves the status and the plots, and is not part of sheet.json.
    """

    value: float | None
    stderr: float | None
    ci: Interval | None
    n: int
    higher_is_better: bool
    protocol: str
    chance: float | None = None


@dataclass(frozen=True)
class Row:
    """One model variant and everything that was measured of it."""

    variant: str
    parent: str | None
    stage: str
    method: str
    settings: dict[str, Any]
    nominal_bits: int | None
    real_bits: float | None
    disk_bytes: int | None
    metrics: dict[str, Metric]
    seconds: float | None
    peak_memory_bytes: int | None
    tokens_per_second: float | None
    status: Status
    warnings: list[str]


@dataclass(frozen=True)
class Sheet:
    """All rows of a run and their comparisons; drawings take everything from here."""

    recipe: str
    rows: list[Row]
    comparisons: list[Comparison]

    def row(self, variant: str) -> Row:
        """The row of a variant."""
        return next(row for row in self.rows if row.variant == variant)

    def metric_keys(self) -> list[str]:
        """All metrics in order of first appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row.metrics))

    def unit(self, metric: str) -> Unit:
        """How the metric's scores and differences are said."""
        return _unit(metric, (row.metrics[metric].value for row in self.rows if metric in row.metrics))

    def against(self, variant: str, other: str | None) -> dict[str, Comparison]:
        """The comparisons of a row with another, by metric."""
        return {c.metric: c for c in self.comparisons if c.variant == variant and c.against == other}

    def to_json(self) -> dict[str, Any]:
        """The record: JSON-able, one schema for every run."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            for metric in row["metrics"].values():
                del metric["chance"]
                metric["ci"] = _pair(metric["ci"])
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
    return {**record, "ci": record["ci"] and Interval(*record["ci"])}


def _unit(metric: str, values: Iterator[float | None]) -> Unit:
    name = split(metric)[2]
    if "bits_per_byte" in name:
        return "bits"
    if "perplexity" in name:
        return "ratio"
    return "share" if all(value is None or 0 <= value <= 1 for value in values) else "ratio"


def build(recipe_name: str, rows: Sequence[RowInput], *, seed: int) -> Sheet:
    """Draw intervals, comparisons and statuses from raw measurements.

    Args:
        recipe_name: name of the recipe.
        rows: in the order of the run; a parent comes before its children, or is not measured at all.
        seed: seed of the bootstrap.

    Raises:
        ValueError: a variant or a metric of a row appears twice, or a parent follows its child.
    """
    _check(rows)
    by_metric: dict[str, dict[str, Sample]] = {}
    for row in rows:
        for measurement in row.measurements:
            by_metric.setdefault(measurement.key, {})[row.variant] = samples.read(measurement)
    by_metric = {key: samples.resample(found, seed) for key, found in by_metric.items()}
    units = {key: _unit(key, (sample.value for sample in found.values())) for key, found in by_metric.items()}
    drafts = {row.variant: _draft(row, by_metric) for row in rows}
    comparisons: list[Comparison] = []
    finished: list[Row] = []
    for draft in drafts.values():
        found, obstacles = _family(draft, list(drafts.values()), by_metric, units)
        comparisons += found
        verdict = status.judge(draft, drafts, [c for c in found if c.against == draft.parent])
        finished.append(replace(draft, status=verdict, warnings=draft.warnings + obstacles))
    return Sheet(recipe_name, finished, comparisons)


def _check(rows: Sequence[RowInput]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.variant in seen:
            raise ValueError(f"variant {row.variant!r} appears twice")
        if row.parent in {later.variant for later in rows} - seen:
            raise ValueError(f"row {row.variant!r} comes before its parent {row.parent!r}")
        keys = [measurement.key for measurement in row.measurements]
        if len(set(keys)) < len(keys):
            raise ValueError(f"row {row.variant!r} measures a metric twice: {sorted(keys)}")
        seen.add(row.variant)


def _draft(row: RowInput, by_metric: Mapping[str, Mapping[str, Sample]]) -> Row:
    metrics: dict[str, Metric] = {}
    for measurement in row.measurements:
        sample = by_metric[measurement.key][row.variant]
        metrics[measurement.key] = Metric(
            value=sample.value,
            stderr=sample.stderr,
            ci=sample.interval,
            n=sample.n,
            higher_is_better=measurement.higher_is_better,
            protocol=measurement.protocol,
            chance=measurement.chance,
        )
    kept = {name: value for name, value in vars(row).items() if name not in ("measurements", "warnings")}
    infinite = [f"{key} is not a finite number" for key, metric in metrics.items() if metric.value is None]
    return Row(**kept, metrics=metrics, status="sound", warnings=[*row.warnings, *infinite])


def opponents(row: Row, rows: Sequence[Row]) -> list[str]:
    """What a row is compared with: its parent, the first row, and earlier siblings of as many bits."""
    kin = (row.parent, row.nominal_bits)
    earlier = rows[: rows.index(row)] if row.nominal_bits is not None else []
    siblings = [other.variant for other in earlier if (other.parent, other.nominal_bits) == kin]
    parents = [other.variant for other in rows if other.variant == row.parent]
    named = dict.fromkeys([*parents, rows[0].variant, *siblings])
    return [variant for variant in named if variant != row.variant]


def _family(
    row: Row,
    rows: Sequence[Row],
    by_metric: Mapping[str, Mapping[str, Sample]],
    units: Mapping[str, Unit],
) -> tuple[list[Comparison], list[str]]:
    """The row's comparisons, and why some could not be made."""
    family: list[compare.Pair] = []
    obstacles: list[str] = []
    if row.parent is not None and row.parent not in {other.variant for other in rows}:
        obstacles.append(f"not compared with its parent {row.parent}, which is not a row of this sheet")
    for against in opponents(row, rows):
        for key in row.metrics:
            sample, other = by_metric[key][row.variant], by_metric[key].get(against)
            if other is None or _told_by_perplexity(key, row.variant, against, by_metric):
                continue
            if reason := compare.obstacle(sample, other):
                obstacles.append(f"{key} is not compared with {against}: {reason}")
            else:
                family.append(compare.Pair(row.variant, sample, against, other, units[key]))
    return compare.conclude(family), obstacles


def _told_by_perplexity(
    key: str, variant: str, against: str, by_metric: Mapping[str, Mapping[str, Sample]]
) -> bool:
    """Whether bits per byte would only repeat a perplexity that can be compared: under one tokenizer."""
    if not wording.repeats(key, by_metric):
        return False
    perplexity = by_metric[key.removesuffix("bits_per_byte") + "perplexity"]
    sample, other = perplexity.get(variant), perplexity.get(against)
    return sample is not None and other is not None and compare.obstacle(sample, other) is None


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
