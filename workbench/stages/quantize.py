"""Quantize: calibrate on the recipe's text, quantize the parent's decoder blocks, save."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from workbench import models, quantization
from workbench.recipe.quantization import TUNED
from workbench.recipe.quantize import Quantize
from workbench.stages import train
from workbench.stages.allocation import allot
from workbench.stages.calibration import calibration
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult


def build(job: Job, out: Path) -> None:
    """Write the quantized model and its per-layer diagnostics to `out`."""
    stage, parent, bits = job.variant.stage, job.parent, job.variant.bits
    assert isinstance(stage, Quantize) and parent and bits
    if job.variant.method in TUNED:
        return train.build(job, out)
    tokenizer = models.load_tokenizer(parent.model_folder)
    allotted = allot(job)
    model, fill = models.stream(parent.model_folder, getattr(torch, job.origin.dtype))
    with measured() as cost:
        report = quantization.quantize(
            model,
            stage.at(job.variant.group_size),
            job.variant.method,
            bits,
            calibration(job, parent.model_folder),
            title=job.variant.name,
            seed=job.recipe.seed,
            unfinished=out,
            allotted=allotted,
            fill=fill,
        )
    notes = {"method": job.variant.method, "bits": report.nominal_bits, "real_bits": report.real_bits}
    models.save(model, tokenizer, out / "model", notes)
    StageResult(
        cost.seconds,
        cost.peak_memory_bytes,
        nominal_bits=report.nominal_bits,
        real_bits=report.real_bits,
        warnings=report.warnings,
        details={
            "layers": [asdict(layer) for layer in report.layers],
            **({"allocation": {name: asdict(own) for name, own in allotted.items()}} if allotted else {}),
        },
    ).write(out)
    quantization.discard_blocks(out)
