"""The model of a variant without its weights: what a forecast counts, for nothing is allocated."""

from __future__ import annotations

from copy import deepcopy

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from workbench import models
from workbench.models.mogu import projections
from workbench.models.routing import Routing
from workbench.recipe.methods import ControlLlm, LlamaPro, Lora
from workbench.recipe.safety import Mogu, Safety
from workbench.recipe.schema import Vocabulary
from workbench.recipe.training import Continued
from workbench.retention import control_llm, freeze, llama_pro, lora
from workbench.stages.job import Job, expansion


def architecture(job: Job, config: PretrainedConfig) -> PreTrainedModel:
    """The variant's finished model on the meta device.

    Args:
        job: the variant.
        config: of the model that the variant goes back to.

    Raises:
        ModelError: the model cannot be expanded as the recipe says.
    """
    with torch.device("meta"):
        model = architecture(job.parent, config) if job.parent else AutoModelForCausalLM.from_config(config)
        if job.variant.kind == "merge-back":
            return models.merge_back(model, None)
        if isinstance(job.variant.stage, Vocabulary):
            renewed, changed = job.variant.stage, deepcopy(model.config)
            changed.vocab_size = renewed.tokens + (0 if renewed.replace else model.config.vocab_size)
            made: PreTrainedModel = AutoModelForCausalLM.from_config(changed)
            return made
        if isinstance(job.variant.stage, Safety) and job.variant.method == "mogu":
            return models.add_responders(model, routing(job.variant.stage.mogu), job.recipe.seed)
        section = expansion(job)
        return model if section is None else expanded(model, section, job.recipe.seed)


def expanded(model: PreTrainedModel, section: ControlLlm | LlamaPro, seed: int) -> PreTrainedModel:
    """A model with the blocks that a method adds."""
    if isinstance(section, ControlLlm):
        return models.expand(model, section, seed)
    return models.stack(model, section.blocks)


def routing(section: Mogu) -> Routing:
    """Sizes of what MoGU adds."""
    return Routing(**section.model_dump(include={"rank", "alpha", "router_width", "router_tokens"}))


def in_training(job: Job, config: PretrainedConfig) -> PreTrainedModel:
    """The variant's model as the loop sees it, with what is trained marked as such.

    Raises:
        ModelError: the method does not fit the model.
    """
    model, stage = architecture(job, config), job.variant.stage
    with torch.device("meta"):
        match job.variant.method:
            case "control-llm" if isinstance(stage, Continued) and stage.control_llm:
                control_llm.freeze(model, stage.control_llm)
            case "llama-pro":
                llama_pro.freeze(model)
            case "lora" if isinstance(stage, Continued):
                lora.wrap(model, stage.lora, job.recipe.seed)
            case "mogu":
                model.requires_grad_(False)
                for projection in projections(model):
                    projection.requires_grad_(True)
                    projection.base.requires_grad_(False)
            case "dpo" if isinstance(stage, Safety) and stage.dpo.lora:
                lora.wrap(model, stage.dpo.lora, job.recipe.seed)
            case "q-resafe" if isinstance(stage, Safety):
                lora.wrap(model, Lora(rank=stage.q_resafe.rank), job.recipe.seed)
            case "freeze" if isinstance(stage, Continued) and stage.freeze:
                freeze.freeze(model, stage.freeze)
    return model
