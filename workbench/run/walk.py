"""Walk a recipe: make every variant once, measure it as soon as it exists, write the sheet.

Killed at any moment, the same command goes on where it stopped: finished work lies in the store under
its fingerprint, unfinished work in a partial folder. A finished run only shows its sheet.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from workbench import evaluation, sheet, storage
from workbench.errors import RunError
from workbench.progress import console
from workbench.recipe import Loaded
from workbench.recipe.quantization import TUNED
from workbench.recipe.schema import Recipe
from workbench.recipe.training import TrainingStage
from workbench.run import forecast, record, rows
from workbench.sheet import Sheet
from workbench.stages import (
    evaluate,
    guard,
    leaks,
    load,
    merge,
    preference,
    prepare,
    quantize,
    train,
    vocabulary,
)
from workbench.stages.job import Job, jobs_by_name
from workbench.stages.result import StageResult
from workbench.storage import Store

# Kinds whose builder goes on from what a stopped try left behind.
RESUMABLE = {"pretrain", "cpt", "sft", "safety", "quantize"}
BUILDERS: dict[str, Callable[[Job, Path], None]] = {
    "load": load.build,
    "pretrain": train.build,
    "cpt": train.build,
    "sft": train.build,
    "safety": preference.build,
    "guard": guard.build,
    "vocabulary": vocabulary.build,
    "merge": merge.merge,
    "merge-back": merge.merge_back,
    "quantize": quantize.build,
}


def run(loaded: Loaded, root: Path, command: str) -> tuple[Sheet, list[str]]:
    """Run a recipe to its sheet.

    Args:
        loaded: the recipe, checked.
        root: folder of all runs and of the store.
        command: the exact command that reproduces this run, for the report.

    Returns:
        The sheet, and one sentence for each expectation that was not met.

    Raises:
        WorkbenchError: something that the user can put right; finished work is kept.
    """
    folder = root / run_name(loaded)
    store = Store(root / ".store")
    jobs = [job for seeded in replicates(loaded.recipe) for job in make_jobs(seeded, store)]
    _refuse_read_only(folder)
    with storage.locked(folder / "lock", f"run folder {folder}"):
        if not _finished(folder, jobs):
            _walk(loaded, folder, jobs, command)
        finished = Sheet.from_json(storage.read_json(folder / "sheet.json"))
    return finished, sheet.check_expectations(finished, loaded.recipe.expect)


def run_name(loaded: Loaded) -> str:
    """Folder of a run below the root: the recipe's name, and a short hash where overrides change it."""
    return loaded.recipe.name + (f"--{loaded.digest[:8]}" if loaded.overrides else "")


def replicates(recipe: Recipe) -> list[Recipe]:
    """The recipe under each of its seeds."""
    seeds = range(recipe.seed, recipe.seed + recipe.replicates)
    return [recipe.model_copy(update={"seed": seed}) for seed in seeds]


def make_jobs(recipe: Recipe, store: Store) -> list[Job]:
    """One job per variant, in the order in which they are made."""
    return list(jobs_by_name(recipe, store).values())


def _walk(loaded: Loaded, folder: Path, jobs: list[Job], command: str) -> None:
    recipe, printed = loaded.recipe, None
    if recipe.evaluate:
        evaluation.check_battery(evaluation.load_battery(recipe.evaluate.battery))
        printed = sheet.load_published(recipe.evaluate.published) if recipe.evaluate.published else None
    for seeded in replicates(recipe):
        leaks.check(seeded)
    forecast.refuse(forecast.forecast(jobs), folder)
    events = record.Events(folder / "events.jsonl")
    storage.write_text(folder / "recipe.yaml", loaded.text)
    facts = record.provenance(loaded, command)
    storage.write_json(folder / "record.json", facts)
    events("run started", digest=loaded.digest)
    start = time.perf_counter()
    for job in jobs:
        home = _home(folder, job.recipe, recipe)
        _make(job, home, events)
        if _is_row(job):
            _measure(job, home, events)
    for seeded in replicates(recipe):
        _prepare(seeded, _home(folder, seeded, recipe), jobs[0].store)
    shown = [job for job in jobs if _is_row(job)]
    found = [rows.row(twins) for twins in rows.by_variant(shown)]
    finished = sheet.build(recipe.name, found, seed=recipe.seed)
    facts |= {
        "finished": record.now(),
        "seconds": time.perf_counter() - start,
        "fingerprints": _fingerprints(jobs),
        "stages": {job.variant.name: job.fingerprint for job in jobs if job.recipe.seed == recipe.seed},
    }
    curves = [rows.curve(twins) for twins in rows.by_variant([job for job in jobs if _trained(job)])]
    sheet.write(folder, finished, curves, command, facts, recipe.expect, printed)
    storage.write_json(folder / "record.json", facts)
    events("run finished", seconds=facts["seconds"])


def _make(job: Job, home: Path, events: record.Events) -> None:
    name = f"{job.variant.stage_index:02d}-{job.variant.kind}-{job.variant.name}"
    link = home / "stages" / name
    if not job.store.has(job.fingerprint):
        events("stage started", variant=job.variant.name, fingerprint=job.fingerprint)
        seed = f", seed {job.recipe.seed}" if job.recipe.replicates > 1 else ""
        console.print(f"[bold]{job.variant.name}[/bold]  {job.variant.kind}{seed}", highlight=False)
        _link(link, job.folder.with_name(f"{job.fingerprint}.partial"))
        build = BUILDERS[job.variant.kind]
        job.store.make(job.fingerprint, lambda out: build(job, out), resumable=job.variant.kind in RESUMABLE)
        events("stage finished", variant=job.variant.name, seconds=StageResult.read(job.folder).seconds)
    else:
        events("stage found in the store", variant=job.variant.name, fingerprint=job.fingerprint)
    _link(link, job.folder)


def _prepare(recipe: Recipe, folder: Path, store: Store) -> None:
    """Link every preparation; those that a training has read are made already."""
    for name in recipe.prepare:
        _link(folder / "prepare" / name, prepare.preparation(store, name, recipe))
    if recipe.prepare:
        records = {
            name: storage.read_json(folder / "prepare" / name / "preparation.json") for name in recipe.prepare
        }
        storage.write_json(folder / "preparation.json", records)


def _measure(job: Job, home: Path, events: record.Events) -> None:
    if job.recipe.evaluate is None:
        return
    fingerprint = evaluate.fingerprint(job)
    if not job.store.has(fingerprint):
        events("evaluation started", variant=job.variant.name)
        job.store.make(fingerprint, lambda out: evaluate.build(job, out), resumable=True)
        events("evaluation finished", variant=job.variant.name)
    _link(home / "evals" / job.variant.name, job.store.path(fingerprint))


def _home(folder: Path, seeded: Recipe, recipe: Recipe) -> Path:
    """Where the work of one seed is linked: under the recipe's own seed in the run folder itself."""
    return folder if seeded.seed == recipe.seed else folder / "seeds" / str(seeded.seed)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    os.replace(partial, link)


def _is_row(job: Job) -> bool:
    section = job.recipe.evaluate
    return section is None or section.rows == "all" or job.variant.name in section.rows


def _trained(job: Job) -> bool:
    return isinstance(job.variant.stage, TrainingStage) or job.variant.method in TUNED


def _fingerprints(jobs: list[Job]) -> list[str]:
    measured = [evaluate.fingerprint(job) for job in jobs if job.recipe.evaluate and _is_row(job)]
    return [job.fingerprint for job in jobs] + measured


def _finished(folder: Path, jobs: list[Job]) -> bool:
    path = folder / "record.json"
    if not path.is_file() or not (folder / "sheet.json").is_file():
        return False
    fingerprints = _fingerprints(jobs)
    return storage.read_json(path).get("fingerprints") == fingerprints and all(
        map(jobs[0].store.has, fingerprints)
    )


def _refuse_read_only(folder: Path) -> None:
    """A folder that its owner has marked read-only stays as it is, even for a user who could write there."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not stat.S_IMODE(path.stat().st_mode) & 0o222 or not os.access(path, os.W_OK):
                raise RunError(f"{path} is read-only; make it writable, or run where you may write")
            return
