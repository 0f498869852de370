"""The text on which a quantization is calibrated, as token sequences."""

from __future__ import annotations

from pathlib import Path

import torch

from workbench.data import Mixture
from workbench.recipe.quantization import CALIBRATED, Calibration
from workbench.recipe.quantize import Quantize
from workbench.stages import prepare
from workbench.stages.job import Job


def calibration(job: Job, tokenizer_folder: Path) -> list[torch.Tensor] | None:
    """Token sequences of the calibration mixture; None where the method looks at no text."""
    stage = job.variant.stage
    assert isinstance(stage, Quantize)
    if stage.calibration is None or job.variant.method not in CALIBRATED:
        return None
    return sequences(job, stage.calibration, tokenizer_folder)


def sequences(
    job: Job, section: Calibration, tokenizer_folder: Path, first: int | None = None
) -> list[torch.Tensor]:
    """Token ids [tokens] of the calibration mixture, or of its first sequences alone."""
    recipe = job.recipe
    files = {
        name: prepare.token_file(job.store, name, recipe.data[name], recipe, tokenizer_folder)
        for name in section.mixture
    }
    mixture = Mixture(files, section.mixture, recipe.seed, section.sequences, section.sequence_length)
    batch = mixture.batch(0)
    tokens, documents = batch.tokens[:first], batch.documents[:first]
    if section.documents == "joined":
        return list(tokens)
    lengths = [torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in documents]
    pieces = [piece for row, cuts in zip(tokens, lengths, strict=True) for piece in row.split(cuts)]
    return sorted(pieces, key=len)  # neighbours of one length run as one batch
