"""Evaluate: one row of the sheet under the recipe's battery, and its speed."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from workbench import evaluation, models, safety, storage
from workbench.data import TokenFile
from workbench.evaluation import measurement
from workbench.evaluation.battery import ModerationEntry, SafetyEntry
from workbench.evaluation.fertility import fertility
from workbench.recipe.safety import Guarded
from workbench.recipe.schema import Recipe, Vocabulary
from workbench.safety.moderation import moderation_identity
from workbench.stages import moderation, prepare
from workbench.stages import safety as safety_stage
from workbench.stages.identity import VERSIONS, grader_identity, judge_identity, source_identity
from workbench.stages.job import Job
from workbench.storage import Store

SPEED_BATCH, SPEED_REPEATS = 8, 7


def fingerprint(job: Job) -> str:
    """What determines a row's measurements: the model, the battery's text and the world it asks about."""
    section = job.recipe.evaluate
    assert section
    battery = evaluation.load_battery(section.battery)
    return storage.digest(
        {
            "kind": "evaluate",
            "version": VERSIONS["evaluate"],
            "model": job.fingerprint,
            "battery": evaluation.battery_identity(section.battery),
            "texts": {entry.name: source_identity(entry.text, job.recipe) for entry in battery.language},
            **({"safety": _safety_identity(battery.safety, job.recipe)} if battery.safety else {}),
            **_moderation_identity(battery.moderation, job),
            "metadata": metadata(job.recipe),
            **({"fertility": 1} if renews_vocabulary(job.recipe) else {}),
        }
    )


def _safety_identity(entry: SafetyEntry, recipe: Recipe) -> dict[str, Any]:
    """What determines the requests that are asked, and the verdicts."""
    return {
        "version": VERSIONS["verdicts"],
        "requests": safety.requests_identity(entry.requests, recipe.seed),
        "judges": [judge_identity(judge, recipe) for judge in entry.judges],
        "grader": grader_identity(entry.grader, recipe) if entry.grader else None,
    }


def _moderation_identity(entry: ModerationEntry | None, job: Job) -> dict[str, Any]:
    """What determines the texts that a guard judges; the guard is part of its row. Nothing of other rows."""
    if entry is None or not isinstance(job.variant.stage, Guarded):
        return {}
    texts = moderation_identity(entry.texts, job.recipe.seed)
    return {"moderation": {**entry.model_dump(), "texts": texts, "version": VERSIONS["moderation"]}}


def renews_vocabulary(recipe: Recipe) -> bool:
    """Whether rows differ in their tokenizer, so that it is told what text costs under each."""
    return any(isinstance(stage, Vocabulary) for stage in recipe.stages)


def metadata(recipe: Recipe) -> dict[str, Any]:
    """What the battery's tasks may ask of the recipe: the seed of the miniature world."""
    return {"seed": recipe.seed}


def texts(recipe: Recipe, store: Store, tokenizer_folder: Path) -> dict[str, TokenFile]:
    """Token files of the battery's held-out texts, by name."""
    if recipe.evaluate is None:
        return {}
    battery = evaluation.load_battery(recipe.evaluate.battery)
    return {
        entry.name: prepare.token_file(store, entry.name, entry.text, recipe, tokenizer_folder)
        for entry in battery.language
    }


@cache
def _harness(battery: str, seed: int) -> evaluation.Harness:
    """The battery's tasks, built once per process: eleven rows ask the same questions."""
    return evaluation.Harness(evaluation.load_battery(battery), {"seed": seed})


def build(job: Job, out: Path) -> None:
    """Write `out/<aspect>.<name>.json` for each measure, and `out/speed.json`; what is there stays."""
    section = job.recipe.evaluate
    assert section
    model = models.load(job.model_folder, getattr(torch, job.origin.dtype))
    torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
    tokenizer = models.load_tokenizer(job.model_folder)
    harness = _harness(section.battery, job.recipe.seed)
    files = texts(job.recipe, job.store, job.model_folder)
    evaluation.evaluate(model, tokenizer, harness, files, out, title=job.variant.name)
    if renews_vocabulary(job.recipe):
        for entry in harness.battery.language:
            found = fertility(files[entry.name], tokenizer, entry)
            measurement.write(out / f"language.{entry.name}-fertility.json", [found])
    asked = harness.battery.safety
    if asked:
        parent = job.store.path(fingerprint(job.parent)) if job.parent else None
        safety_stage.ask(job, asked, model, tokenizer, harness.battery.batch_size, out, parent)
    storage.write_json(out / "speed.json", {"tokens_per_second": forward_speed(model)})
    del model  # a judge may need its memory
    if asked:
        safety_stage.tell(job, asked, out)
    if harness.battery.moderation and isinstance(job.variant.stage, Guarded):
        moderation.tell(job, harness.battery.moderation, out)


def forward_speed(model: PreTrainedModel) -> float:
    """Tokens per second of a plain forward pass, median of several, at the context length (at most 512)."""
    length = min(model.config.max_position_embeddings, 512)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (SPEED_BATCH, length), generator=generator).to(
        model.device
    )
    seconds = []
    with torch.inference_mode():
        for _ in range(SPEED_REPEATS):
            start = time.perf_counter()
            model(tokens)
            if tokens.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return tokens.numel() / median(seconds)
