"""Walking a decoder: its blocks, the linears of a block, and which of them read the same input."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from workbench.errors import ModelError

# Linears that read the same input, so that methods which quantize with fresh inputs treat them at once.
_TOGETHER = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks, in forward order.

    Raises:
        ModelError: the model has no list of blocks as long as its configuration says.
    """
    depth = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ModelError(
        f"{type(model).__name__} has no list of {depth} decoder blocks; use a decoder-only model"
    )


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The linears of a block by their dotted name in it, in forward order."""
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def subsets(block: nn.Module) -> list[list[str]]:
    """Names of the linears of a block, those that read the same input together, in forward order.

    For LLaMA: query, key and value; output; gate and up; down.
    """
    groups: list[list[str]] = []
    for name in linears(block):
        parent, _, own = name.rpartition(".")
        shared = next((group for group in _TOGETHER if own in group), {own})
        if groups:
            last_parent, _, last = groups[-1][0].rpartition(".")
            if last_parent == parent and last in shared and last != own:
                groups[-1].append(name)
                continue
        groups.append([name])
    return groups


def count_parameters(config: PretrainedConfig) -> int:
    """Parameters of the model that a configuration describes, tied ones once; nothing is allocated."""
    return sum(parameter.numel() for parameter in outline(config).parameters())


def outline(config: PretrainedConfig) -> PreTrainedModel:
    """The model that a configuration describes, on the meta device; nothing is allocated."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
