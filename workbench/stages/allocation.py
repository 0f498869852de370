"""Widths of single linears within a budget: sensitivity measured once a parent, spent once a variant."""

from __future__ import annotations

from pathlib import Path

import torch

from workbench import models, quantization, storage
from workbench.quantization import Allotted, allocation
from workbench.recipe.quantize import Quantize
from workbench.stages.calibration import sequences
from workbench.stages.identity import VERSIONS
from workbench.stages.job import Job

SENSITIVITIES = "sensitivities.json"


def allot(job: Job) -> dict[str, Allotted] | None:
    """A width for every linear of the parent; None where the recipe gives all the same.

    Raises:
        RecipeError: the budget is below what the smallest widths take.
    """
    stage, parent, bits = job.variant.stage, job.parent, job.variant.bits
    assert isinstance(stage, Quantize) and parent and bits
    if stage.allocation is None:
        return None
    stage = stage.at(job.variant.group_size)
    shapes = quantization.linear_shapes(models.outline(models.load_config(parent.model_folder)))
    sizes = allocation.sizes(job.variant.method, stage, bits, shapes)
    measured = allocation.read(sensitivities(job, stage, parent))
    return allocation.allocate(measured, sizes, allocation.budget(bits, shapes))


def sensitivities(job: Job, stage: Quantize, parent: Job) -> Path:
    """The file of the sensitivities of the parent's linears, which methods and budgets share."""
    section, text, recipe = stage.allocation, stage.calibration, job.recipe
    assert section and text
    fingerprint = storage.digest(
        {
            "kind": "sensitivities",
            "version": VERSIONS["sensitivities"],
            "parent": parent.fingerprint,
            "dtype": job.origin.dtype,
            "settings": stage.model_dump(include={"group_size", "symmetric", "mse_grid"}),
            "widths": sorted(section.widths),
            "sequences": section.sequences,
            "calibration": text.model_dump(),
            "sources": job.identities(text.mixture),
            "seed": recipe.seed,
        }
    )

    def build(out: Path) -> None:
        model = models.load(parent.model_folder, getattr(torch, job.origin.dtype))
        known = sequences(job, text, parent.model_folder, section.sequences)
        title = f"sensitivity of {parent.variant.name}"
        allocation.sensitivities(model, stage, known, title, unfinished=out / SENSITIVITIES)

    return job.store.make(fingerprint, build, resumable=True) / SENSITIVITIES
