"""Quantization that is trained: what the loop starts from, what it is handed, what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from workbench import models, quantization, storage
from workbench.quantization import Report, tuning
from workbench.quantization.finished import Finished
from workbench.recipe.quantization import ADAPTED
from workbench.recipe.quantize import Quantize
from workbench.retention import deviation
from workbench.stages.identity import VERSIONS
from workbench.stages.job import Job
from workbench.stages.method import Handed


def start(job: Job) -> Path:
    """The folder of the model that the loop starts with: the rounded parent, or the parent itself.

    The rounded parent is made once for all ranks, lengths and seeds of a training.
    """
    stage, parent, method = job.variant.stage, job.parent, job.variant.method
    assert isinstance(stage, Quantize) and parent
    if method not in ADAPTED:
        return parent.model_folder
    fingerprint = storage.digest(
        {
            "kind": "rounded",
            "version": VERSIONS["rounded"],
            "parent": parent.fingerprint,
            "dtype": job.origin.dtype,
            "method": method,
            "settings": stage.rounding_of(method),
        }
    )

    def build(out: Path) -> None:
        model = models.load(parent.model_folder, getattr(torch, job.origin.dtype))
        title = f"{job.variant.name}, rounded"
        bits = job.variant.bits or 0
        report = quantization.quantize(model, stage, method, bits, None, title, unfinished=out)
        notes = {"method": method, "bits": bits, "real_bits": report.real_bits, "to be trained": True}
        models.save(model, models.load_tokenizer(parent.model_folder), out / "model", notes)
        quantization.discard_blocks(out)

    return job.store.make(fingerprint, build, resumable=True) / "model"


def hand(model: PreTrainedModel, stage: Quantize, request: Mapping[str, Any], seed: int) -> Handed:
    """Put in the model what is trained, and give what the loop needs besides; on every process alike.

    Args:
        model: as `start` gives it.
        stage: with one group size.
        request: of the training.
        seed: of what is random.
    """
    method, bits, parent = request["method"], request["bits"], Path(request["parent"])
    penalty = None
    if method == "db-llm":
        penalty = deviation.penalty(models.load(parent, model.dtype), stage.db_llm)
    dtype = model.dtype
    tuning.prepare(model, method, stage, seed)

    def finish(trained: PreTrainedModel) -> PreTrainedModel:
        tuning.finish(trained, method, bits)
        return trained

    def report(finished: PreTrainedModel) -> Report:
        found = tuning.compare(finished, models.load(parent, dtype), method, bits)
        told = Finished(Path(request["out"]))
        for layer in found.layers:
            told.tell(layer)
        return found

    return Handed(penalty=penalty, finish=finish, report=report)
