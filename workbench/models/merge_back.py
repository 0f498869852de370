"""Merge-back: fold each copy of a Control LLM into its block (arXiv 2501.10979), for stock transformers.

Per tensor W = lerp(W_p, W_e; w) in float32, or slerp of its rows for slerp, dlerp and dlerpin, with w the
copy's mean share. The mix of outputs is not the output of mixed weights, so this changes the function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from workbench.errors import ModelError
from workbench.models.control_llm import parallel_blocks
from workbench.models.expansion import assemble, changed_config
from workbench.models.interpolators import spherical

ON_THE_ARC = {"slerp", "dlerp", "dlerpin"}


def merge_back(model: PreTrainedModel, shares: Sequence[float] | None) -> LlamaForCausalLM:
    """A stock LLaMA whose blocks lie between the blocks and their copies.

    Copies that stand behind their blocks (hybrid) stay where they are.

    Args:
        model: with parallel blocks.
        shares: mean share w of the copy, one a parallel block; None for what the factors alone say. Where
            the factor is null, w is 1 in any case.

    Raises:
        ModelError: no parallel blocks, another number of shares, or the interpolator prog, whose linear on
            the output of a block, its residual included, no weights of a block can stand for.
    """
    blocks = parallel_blocks(model)
    if not blocks:
        raise ModelError(
            f"{type(model).__name__} has no copies beside its blocks to merge back; name a model of the "
            "method control-llm with the structure concat or hybrid"
        )
    if shares is not None and len(shares) != len(blocks):
        raise ModelError(
            f"{len(shares)} shares for {len(blocks)} blocks with a copy beside them; give one for each"
        )
    if getattr(model, "is_quantized", False):
        raise ModelError("a quantized model cannot be merged back; merge it back first, then quantize it")
    expansion = model.config.expansion
    if expansion["interpolator"] == "prog" and any(factor is not None for factor in expansion["factor"]):
        raise ModelError(
            "interpolator prog cannot be merged back: it puts a linear on the output of a block, and no "
            "weights of a block do the same; use the expanded model, or train with another interpolator"
        )
    weights = {
        name: weight
        for name, weight in model.state_dict().items()
        if not any(part in name for part in (".pretrained.", ".expanded.", ".interpolator."))
    }
    with torch.no_grad():
        for number, (index, block) in enumerate(zip(expansion["parallel"], blocks, strict=True)):
            w = block.interpolator.constant_share().to(model.device)  # [1]
            if shares is not None and expansion["factor"][number] is not None:
                w = torch.full_like(w, shares[number])
            copy = block.expanded.state_dict()
            for name, weight in block.pretrained.state_dict().items():
                merged = _merge(weight, copy[name], w, arc=expansion["interpolator"] in ON_THE_ARC)
                weights[f"model.layers.{index}.{name}"] = merged
    return assemble(LlamaForCausalLM, changed_config(model.config, LlamaConfig), model, weights)


def _merge(p: Tensor, e: Tensor, w: Tensor, *, arc: bool) -> Tensor:
    """W between W_p and W_e, any shape; vectors count as one row."""
    merged = spherical(p.float(), e.float(), w) if arc else torch.lerp(p.float(), e.float(), w)
    return merged.to(p.dtype)
