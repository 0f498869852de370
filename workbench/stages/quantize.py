"""Quantize: calibrate on the recipe's text, quantize the parent's decoder blocks, save."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from workbench import models, quantization
from workbench.data import Mixture
from workbench.recipe.quantization import CALIBRATED
from workbench.recipe.schema import Quantize
from workbench.stages import prepare
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult


def build(job: Job, out: Path) -> None:
    """Write the quantized model and its per-layer diagnostics to `out`."""
    stage, parent, bits = job.variant.stage, job.parent, job.variant.bits
    assert isinstance(stage, Quantize) and parent and bits
    tokenizer = models.load_tokenizer(parent.model_folder)
    model = models.load(parent.model_folder, getattr(torch, job.origin.dtype))
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
        )
    notes = {"method": job.variant.method, "bits": bits, "real_bits": report.real_bits}
    models.save(model, tokenizer, out / "model", notes)
    StageResult(
        cost.seconds,
        cost.peak_memory_bytes,
        nominal_bits=report.nominal_bits,
        real_bits=report.real_bits,
        warnings=report.warnings,
        details={"layers": [asdict(layer) for layer in report.layers]},
    ).write(out)
    quantization.discard_blocks(out)


def calibration(job: Job, tokenizer_folder: Path) -> list[torch.Tensor] | None:
    """Token sequences of the calibration mixture; None where the method looks at no text."""
    stage, recipe = job.variant.stage, job.recipe
    assert isinstance(stage, Quantize)
    section = stage.calibration
    if section is None or job.variant.method not in CALIBRATED:
        return None
    files = {
        name: prepare.token_file(job.store, name, recipe.data[name], recipe, tokenizer_folder)
        for name in section.mixture
    }
    mixture = Mixture(files, section.mixture, recipe.seed, section.sequences, section.sequence_length)
    batch = mixture.batch(0)
    if section.documents == "joined":
        return list(batch.tokens)
    lengths = [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in batch.documents]
    pieces = [piece for row, cuts in zip(batch.tokens, lengths, strict=True) for piece in row.split(cuts)]
    return sorted(pieces, key=len)  # neighbours of one length run as one batch
