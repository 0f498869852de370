"""From raw measurements to the sheet: every score with its interval, every row against its parent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from workbench.evaluation.measurement import Measurement
from workbench.sheet import compare, safety, samples, statistics, status, wording
from workbench.sheet.compare import Comparison
from workbench.sheet.samples import Sample
from workbench.sheet.sheet import Metric, Row, RowInput, Sheet, unit_of
from workbench.sheet.wording import Unit


def build(recipe_name: str, rows: Sequence[RowInput], *, seed: int) -> Sheet:
    """Draw intervals, comparisons and statuses from raw measurements.

    Args:
        recipe_name: name of the recipe.
        rows: in the order of the run; a parent comes before its children, or is not measured at all.
        seed: seed of the bootstrap.

    Raises:
        ValueError: a variant or a metric of a row appears twice, a parent follows its child, or a metric
            has seeds and no measurement.
    """
    _check(rows)
    by_metric: dict[str, dict[str, Sample]] = {}
    for row in rows:
        for measurement in row.measurements:
            by_metric.setdefault(measurement.key, {})[row.variant] = samples.read(measurement)
    by_metric = {key: samples.resample(found, seed) for key, found in by_metric.items()}
    units = {
        key: unit_of(key, (sample.value for sample in found.values())) for key, found in by_metric.items()
    }
    drafts = {row.variant: _draft(row, by_metric) for row in rows}
    comparisons: list[Comparison] = []
    finished: list[Row] = []
    for draft in drafts.values():
        found, obstacles = _family(draft, list(drafts.values()), by_metric, units)
        comparisons += found
        origin = status.origin(draft, drafts)
        verdict = status.judge(draft, drafts, [c for c in found if origin and c.against == origin.variant])
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
        if unknown := sorted(set(row.seeds) - set(keys)):
            raise ValueError(f"row {row.variant!r} has seeds of what it does not measure: {unknown}")
        seen.add(row.variant)


def _draft(row: RowInput, by_metric: Mapping[str, Mapping[str, Sample]]) -> Row:
    metrics = {
        measurement.key: _metric(measurement, by_metric[measurement.key][row.variant], row)
        for measurement in row.measurements
    }
    apart = ("measurements", "warnings", "seeds")
    kept = {name: value for name, value in vars(row).items() if name not in apart}
    infinite = [
        f"{key} is not a finite number"
        for key, metric in metrics.items()
        if metric.value is None and not safety.is_detail(key)
    ]
    return Row(**kept, metrics=metrics, status="sound", warnings=[*row.warnings, *infinite])


def _metric(measurement: Measurement, sample: Sample, row: RowInput) -> Metric:
    seeds = row.seeds.get(measurement.key, [])
    finite = [value for value in seeds if math.isfinite(value)]
    return Metric(
        value=sample.value,
        stderr=sample.stderr,
        ci=sample.interval,
        n=sample.n,
        higher_is_better=measurement.higher_is_better,
        protocol=measurement.protocol,
        chance=measurement.chance,
        seeds=[value if math.isfinite(value) else None for value in seeds],
        seeds_ci=statistics.student(finite) if 1 < len(seeds) == len(finite) else None,
    )


def opponents(row: Row, rows: Sequence[Row]) -> list[str]:
    """What a row is compared with: parent, origin, first row, earlier siblings of as many bits, one named."""
    kin = (row.parent, row.nominal_bits)
    earlier = rows[: rows.index(row)] if row.nominal_bits is not None else []
    siblings = [other.variant for other in earlier if (other.parent, other.nominal_bits) == kin]
    parents = [other.variant for other in rows if other.variant == row.parent]
    origin = status.origin(row, {other.variant: other for other in rows})
    origins = [origin.variant] if origin else []
    named_too = [row.against] if row.against else []
    named = dict.fromkeys([*parents, *origins, rows[0].variant, *siblings, *named_too])
    return [variant for variant in named if variant != row.variant]


def _family(
    row: Row,
    rows: Sequence[Row],
    by_metric: Mapping[str, Mapping[str, Sample]],
    units: Mapping[str, Unit],
) -> tuple[list[Comparison], list[str]]:
    """The row's comparisons, and why some could not be made; details do not weigh on the headlines' p."""
    family: list[compare.Pair] = []
    details: list[compare.Pair] = []
    obstacles: list[str] = []
    if row.parent is not None and row.parent not in {other.variant for other in rows}:
        obstacles.append(f"not compared with its parent {row.parent}, which is not a row of this sheet")
    for against in opponents(row, rows):
        for key in row.metrics:
            sample, other = by_metric[key][row.variant], by_metric[key].get(against)
            if other is None or _told_by_perplexity(key, row.variant, against, by_metric):
                continue
            detail = safety.is_detail(key)
            if not (reason := compare.obstacle(sample, other)):
                pair = compare.Pair(row.variant, sample, against, other, units[key])
                (details if detail else family).append(pair)
            elif not detail:
                obstacles.append(f"{key} is not compared with {against}: {reason}")
    return safety.withheld(compare.conclude(family) + compare.conclude(details), row.metrics), obstacles


def _told_by_perplexity(
    key: str, variant: str, against: str, by_metric: Mapping[str, Mapping[str, Sample]]
) -> bool:
    """Whether bits per byte would only repeat a perplexity that can be compared: under one tokenizer."""
    if not wording.repeats(key, by_metric):
        return False
    perplexity = by_metric[key.removesuffix("bits_per_byte") + "perplexity"]
    sample, other = perplexity.get(variant), perplexity.get(against)
    return sample is not None and other is not None and compare.obstacle(sample, other) is None
