"""Merge and merge-back: new weights out of trained ones, without training."""

from __future__ import annotations

from pathlib import Path

import torch

from workbench import models
from workbench.recipe.schema import Merge
from workbench.retention import merging
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult


def merge(job: Job, out: Path) -> None:
    """Go part of the way from what the parent was made from to the parent."""
    stage, trained = job.variant.stage, job.parent
    assert isinstance(stage, Merge) and trained and trained.parent
    dtype = getattr(torch, job.origin.dtype)
    with measured() as cost:
        base = models.load(trained.parent.model_folder, dtype)
        tuned = models.load(trained.model_folder, dtype)
        algorithm, weight = job.variant.algorithm, job.variant.weight
        assert algorithm and weight is not None
        model = merging.merge(base, tuned, algorithm, weight, stage, job.recipe.seed)
    tokenizer = models.load_tokenizer(trained.model_folder)
    models.save(model, tokenizer, out / "model", {"method": "merge", **job.settings})
    StageResult(cost.seconds, cost.peak_memory_bytes).write(out)


def merge_back(job: Job, out: Path) -> None:
    """Fold the copies of the parent into their blocks, each by its mean share on the text of its training."""
    trained = job.parent
    assert trained
    shares = StageResult.read(trained.folder).details["copy_shares"]
    with measured() as cost:
        model = models.load(trained.model_folder, getattr(torch, job.origin.dtype))
        merged = models.merge_back(model, shares)
    tokenizer = models.load_tokenizer(trained.model_folder)
    models.save(merged, tokenizer, out / "model", {"method": "merge-back", "shares": shares})
    StageResult(cost.seconds, cost.peak_memory_bytes, details={"shares": shares}).write(out)
