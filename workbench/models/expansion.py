"""Block expansion: which blocks of a LLaMA get a copy, and the copies that stand behind their blocks.

Positions as in Control LLM (arXiv 2501.10979) and LLaMA Pro (arXiv 2401.02415, section 3.2): N blocks are
parted into E groups, and the last block of each group is copied. A copy behind its block starts as the
identity: its output projections W_O of the attention and W_down of the MLP are zero, so that only the
residual passes; the norms are not zeroed, or no gradient would reach the block.

What was done stands in `config.expansion`, so that a model is not expanded twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from workbench.errors import ModelError

ZEROED = ("self_attn.o_proj.", "mlp.down_proj.")  # weights, and biases where there are any
Llama = TypeVar("Llama", bound=LlamaForCausalLM)


@dataclass(frozen=True)
class Layout:
    """Where every block of an expanded model comes from.

    Attributes:
        origin: for each block of the expanded model, the index of its block in the base.
        added: indices of the copies that stand behind their blocks.
        parallel: indices of the blocks that have a copy beside them.
    """

    origin: list[int]
    added: list[int]
    parallel: list[int]


def positions(layers: int, blocks: int) -> list[int]:
    """Indices of the blocks to copy: the last of each of `blocks` groups of g = layers / blocks.

    Raises:
        ModelError: `blocks` does not divide `layers`.
    """
    if not 1 <= blocks <= layers or layers % blocks:
        fitting = [count for count in range(1, layers + 1) if layers % count == 0]
        raise ModelError(
            f"blocks: {blocks} does not divide the {layers} blocks of the model; use one of {fitting}"
        )
    group = layers // blocks
    return [index for index in range(layers) if (index + 1) % group == 0]


def layout(layers: int, blocks: int, structure: Literal["concat", "stack", "hybrid"]) -> Layout:
    """The blocks of the expanded model: copies beside (concat), behind (stack), or behind and beside in turn.

    Raises:
        ModelError: `blocks` does not divide `layers`, or a hybrid would end on half a turn.
    """
    chosen = positions(layers, blocks)
    if structure == "hybrid" and blocks % 2:
        raise ModelError(
            f"blocks: {blocks} is odd, and the structure hybrid alternates between a copy behind and a copy "
            "beside; use an even number, or the structure concat or stack"
        )
    origin: list[int] = []
    added: list[int] = []
    parallel: list[int] = []
    for index in range(layers):
        origin.append(index)
        if index not in chosen:
            continue
        if structure == "stack" or (structure == "hybrid" and chosen.index(index) % 2 == 0):
            added.append(len(origin))
            origin.append(index)
        else:
            parallel.append(len(origin) - 1)
    return Layout(origin, added, parallel)


def check_expandable(model: PreTrainedModel) -> None:
    """Refuse models whose blocks cannot be copied.

    Raises:
        ModelError: expanded already, quantized, or not a LLaMA.
    """
    if expansion := getattr(model.config, "expansion", None):
        raise ModelError(
            f"{type(model).__name__} is expanded already (structure {expansion['structure']}, "
            f"{expansion['blocks']} blocks); expand the model that it was made from, or merge it back first"
        )
    if type(model) is not LlamaForCausalLM:
        raise ModelError(
            f"{type(model).__name__} cannot be expanded; only LlamaForCausalLM, the LLaMA architecture, can"
        )
    if getattr(model, "is_quantized", False):
        raise ModelError(
            "the model is quantized, and copies of quantized blocks cannot be trained; expand the model that "
            "it was made from"
        )


def stack(model: PreTrainedModel, blocks: int) -> LlamaForCausalLM:
    """Put a copy that does nothing behind the last block of each group (LLaMA Pro).

    Args:
        model: a LLaMA; its weights become those of the result and are not copied.
        blocks: E, the number of copies.

    Returns:
        A stock LLaMA of E more blocks, with the logits of `model`, in evaluation mode.

    Raises:
        ModelError: a model that cannot be expanded, or E does not divide its blocks.
    """
    check_expandable(model)
    depth = model.config.num_hidden_layers
    plan = layout(depth, blocks, "stack")
    record = {"structure": "stack", "layers": depth, "blocks": blocks, "added": plan.added}
    config = changed_config(model.config, LlamaConfig, num_hidden_layers=len(plan.origin), expansion=record)
    return assemble(LlamaForCausalLM, config, model, stacked(model.state_dict(), plan))


def stacked(base: Mapping[str, Tensor], plan: Layout) -> dict[str, Tensor]:
    """Weights of the expanded model without the copies beside: blocks renumbered, copies behind them."""
    weights = {name: weight for name, weight in base.items() if not name.startswith("model.layers.")}
    for index, source in enumerate(plan.origin):
        for name, weight in block_weights(base, source).items():
            if index in plan.added:
                weight = torch.zeros_like(weight) if name.startswith(ZEROED) else weight.clone()
            weights[f"model.layers.{index}.{name}"] = weight
    return weights


def block_weights(weights: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """The weights of one block by their name in it."""
    prefix = f"model.layers.{index}."
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def changed_config(config: PreTrainedConfig, kind: type[LlamaConfig], **changes: Any) -> Any:
    """The configuration with other values, as one of the class `kind`; without an expansion unless given."""
    dropped = {"model_type", "architectures", "expansion", "transformers_version"}
    kept = {key: value for key, value in config.to_dict().items() if key not in dropped}
    made = kind(**{**kept, **changes})
    made._attn_implementation = config._attn_implementation
    return made


def assemble(
    kind: type[Llama], config: LlamaConfig, model: PreTrainedModel, weights: Mapping[str, Tensor]
) -> Llama:
    """A model of given weights, which it takes as they are; the rest is that of the model they come from."""
    with torch.device("meta"):
        made = kind(config)
    made.load_state_dict(weights, assign=True)
    made.model.rotary_emb = model.base_model.rotary_emb  # its tables are in no state dict
    made.tie_weights()
    made.generation_config = model.generation_config
    made.eval()  # type: ignore[no-untyped-call]
    return made
