"""From finished work in the store to what the sheet takes: one row and one curve a variant, of all seeds."""

from __future__ import annotations

from statistics import mean
from typing import Any

from workbench import evaluation, storage
from workbench.evaluation import Measurement
from workbench.sheet import Curve, RowInput
from workbench.stages import evaluate
from workbench.stages.job import Job
from workbench.stages.result import StageResult
from workbench.training import log


def by_variant(jobs: list[Job]) -> list[list[Job]]:
    """The jobs of each variant, one a seed."""
    twins: dict[str, list[Job]] = {}
    for job in jobs:
        twins.setdefault(job.variant.name, []).append(job)
    return list(twins.values())


def row(twins: list[Job]) -> RowInput:
    """One row of all seeds: questions pooled, costs averaged."""
    job, results = twins[0], [StageResult.read(twin.folder) for twin in twins]
    by_seed: dict[int, list[Measurement]] = {}
    speeds: list[float] = []
    for twin in twins if job.recipe.evaluate else []:
        folder = twin.store.path(evaluate.fingerprint(twin))
        by_seed[twin.recipe.seed] = evaluation.read(folder)
        speeds.append(storage.read_json(folder / "speed.json")["tokens_per_second"])
    measurements = evaluation.pool(by_seed) if by_seed else []
    return RowInput(
        variant=job.variant.name,
        parent=job.variant.parent,
        stage=job.variant.kind,
        method=job.variant.method,
        settings=job.settings,
        nominal_bits=results[0].nominal_bits,
        real_bits=results[0].real_bits,
        disk_bytes=sum(path.stat().st_size for path in job.model_folder.glob("*.safetensors")),
        measurements=measurements,
        seeds=_values(by_seed),
        seconds=mean(result.seconds for result in results),
        peak_memory_bytes=max(result.peak_memory_bytes for result in results),
        tokens_per_second=mean(speeds) if speeds else None,
        trainable_parameters=results[0].details.get("trainable_parameters"),
        warnings=[warning for result in results for warning in result.warnings],
        against=job.recipe.evaluate.against.get(job.variant.name) if job.recipe.evaluate else None,
    )


def _values(by_seed: dict[int, list[Measurement]]) -> dict[str, list[float]]:
    """Each score under each seed, where there are several."""
    if len(by_seed) < 2:
        return {}
    values: dict[str, list[float]] = {}
    for measurements in by_seed.values():
        for measurement in measurements:
            values.setdefault(measurement.key, []).append(measurement.value)
    return values


def curve(twins: list[Job]) -> Curve:
    """Probes and losses over training, averaged over the seeds at the steps that all of them logged."""
    logs = [
        {(point["tokens"], _kind(point)): point for point in log.read(twin.folder / "metrics.jsonl")}
        for twin in twins
    ]
    points = []
    for place, point in logs[0].items():
        found = [other[place] for other in logs if place in other]
        if len(found) == len(logs):
            points.append(point | _averaged(found))
    seeds = [list(points.values()) for points in logs] if len(logs) > 1 else []
    return Curve(twins[0].variant.name, points, seeds)


def _kind(point: dict[str, Any]) -> str:
    """What a point of the log tells: a probe, a change of the mixture, or a step."""
    return next(kind for kind in ("probe", "curriculum", "loss") if kind in point)


def _averaged(points: list[dict[str, Any]]) -> dict[str, Any]:
    averaged: dict[str, Any] = {}
    for key in ("probe", "weights", "sources"):
        if key in points[0]:
            each = [point[key] for point in points]
            averaged[key] = {name: mean(one[name] for one in each) for name in each[0]}
    return averaged | ({"loss": mean(point["loss"] for point in points)} if "loss" in points[0] else {})
