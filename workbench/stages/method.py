"""A method of continual pre-training: what it starts from, and what it hands to the one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from workbench import models, storage
from workbench.data import Mixture
from workbench.quantization import Report
from workbench.recipe.training import Continued
from workbench.retention import control_llm, distill, ewc, freeze, l2sp, llama_pro, lora
from workbench.stages import prepare
from workbench.stages.blueprint import expanded
from workbench.stages.identity import VERSIONS
from workbench.stages.job import Job, expansion
from workbench.training import Anchor, Penalty

STEP_0_TOKENS = (2, 32)  # on which an expanded model must give the logits of its base
SURGERY = {"structure", "blocks", "interpolator", "factor", "learn_factor"}  # settings that shape the model


@dataclass(frozen=True)
class Handed:
    """What a method adds to the loop, and what becomes of the model after it.

    Attributes:
        penalty: added to the loss.
        anchor: what pulls the weights back.
        finish: makes the model that is saved of the trained one.
        report: what quantization did to a finished model; None where it is not quantized.
    """

    penalty: Penalty | None = None
    anchor: Anchor | None = None
    finish: Callable[[PreTrainedModel], PreTrainedModel] = lambda model: model
    report: Callable[[PreTrainedModel], Report] | None = None


def start(job: Job) -> Path:
    """The folder of the model that the loop starts with: the parent's, or that of the expanded parent."""
    assert job.parent
    section = expansion(job)
    if section is None:
        return job.parent.model_folder
    parent, seed = job.parent, job.recipe.seed
    settings = section.model_dump(include=SURGERY)
    fingerprint = storage.digest(
        {
            "kind": "expand",
            "version": VERSIONS["expand"],
            "parent": parent.fingerprint,
            "dtype": job.origin.dtype,
            "settings": settings,
            "seed": seed,
        }
    )

    def build(out: Path) -> None:
        base = models.load(parent.model_folder, getattr(torch, job.origin.dtype))
        model = expanded(base, section, seed)
        tokens = torch.randint(
            base.config.vocab_size, STEP_0_TOKENS, generator=torch.Generator().manual_seed(seed)
        )
        deviation = models.step_0_deviation(base, model, tokens)
        notes = {"expanded from": parent.variant.name, **settings, "step 0 deviation of a logit": deviation}
        models.save(model, models.load_tokenizer(parent.model_folder), out, notes)

    return job.store.make(fingerprint, build)


def fisher(job: Job) -> Path | None:
    """The file of the Fisher information of old text, for the method ewc."""
    stage = job.variant.stage
    if job.variant.method != "ewc" or not isinstance(stage, Continued) or stage.ewc is None:
        return None
    assert job.parent
    section, parent, recipe = stage.ewc, job.parent, job.recipe
    files = {name: prepare.training_file(job, name, parent.model_folder) for name in section.mixture}
    fingerprint = storage.digest(
        {
            "kind": "fisher",
            "version": VERSIONS["fisher"],
            "parent": parent.fingerprint,
            "texts": {name: file.folder.name for name, file in files.items()},
            "settings": section.model_dump(include={"mixture", "sequences"}),
            "sequence_length": stage.sequence_length,
            "seed": recipe.seed,
        }
    )

    def build(out: Path) -> None:
        model = models.load(parent.model_folder)
        mixture = Mixture(files, section.mixture, recipe.seed, 1, stage.sequence_length)
        batches = (mixture.batch(step) for step in range(section.sequences))
        save_file(ewc.fisher(model, batches, section.sequences), out / "fisher.safetensors")

    return job.store.make(fingerprint, build) / "fisher.safetensors"


def hand(
    model: PreTrainedModel, stage: Continued, method: str, request: Mapping[str, Any], seed: int
) -> Handed:
    """Set what of the model is trained, and give what the loop needs besides; on every process alike."""
    match method:
        case "control-llm":
            assert stage.control_llm
            control_llm.freeze(model, stage.control_llm)
            return Handed(penalty=control_llm.divergence(stage.control_llm))
        case "llama-pro":
            llama_pro.freeze(model)
        case "lora":
            return Handed(finish=lora.wrap(model, stage.lora, seed))
        case "l2sp":
            return Handed(anchor=l2sp.anchor(stage.l2sp))
        case "ewc":
            assert stage.ewc
            return Handed(anchor=ewc.anchor(load_file(request["fisher"]), stage.ewc))
        case "distill":
            teacher = models.load(Path(request["parent"]), model.dtype)
            old = stage.replay.mixture if stage.replay else {}
            return Handed(penalty=distill.penalty(teacher, stage.distill, set(old)))
        case "freeze":
            assert stage.freeze
            freeze.freeze(model, stage.freeze)
    return Handed()
