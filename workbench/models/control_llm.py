"""Control LLM (arXiv 2501.10979): a trainable copy beside a frozen block, on the same input.

In a LLaMA of N blocks, E evenly spread ones become a `ParallelBlock`: block and copy see the same input x
and give p and e, and an interpolator mixes them. At the start e equals p, so the mix is p and the model is
the base. With the structure hybrid every other copy stands behind its block instead (expansion.py).

Each branch has a place of its own in the key-value cache: blocks their index, copies the places after the
last block. `config.expansion` is all that is needed to build the model; importing this module registers it
with transformers' auto classes.
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaModel,
    LlamaPreTrainedModel,
)

from workbench.errors import ModelError, NumericsError
from workbench.models.expansion import (
    assemble,
    block_weights,
    changed_config,
    check_expandable,
    layout,
    stack,
    stacked,
)
from workbench.models.interpolators import CHOOSING, INTERPOLATORS, Interpolator
from workbench.recipe.methods import ControlLlm


@strict  # collects the validators, that which is overridden below among them
class ControlLlamaConfig(LlamaConfig):
    """The configuration of a LLaMA with parallel blocks.

    Attributes:
        expansion: structure, layers (of the base) and blocks (E); added and parallel, the indices of copies
            behind and of blocks with a copy beside; interpolator, and factor, one at the start for each
            parallel block, or None.
    """

    model_type = "control_llama"

    expansion: dict[str, Any] | None = None

    @property
    def layer_types(self) -> list[str]:
        """One a place in the key-value cache: the blocks, then the copies; this is where caches look."""
        parallel = self.expansion["parallel"] if self.expansion else []
        return ["full_attention"] * (self.num_hidden_layers + len(parallel))

    def validate_layer_type(self) -> None:
        """Let there be more places in the cache than blocks."""


class ParallelBlock(nn.Module):
    """A block and its copy on the same input.

    Attributes:
        keep_branches: keep, in training, what a divergence compares.
        branches: of the last forward: what e is held to (detached from p), e, and the share w.
    """

    def __init__(
        self, pretrained: LlamaDecoderLayer, expanded: LlamaDecoderLayer, interpolator: Interpolator
    ) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.expanded = expanded
        self.interpolator = interpolator
        self.keep_branches = False
        self.branches: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        """From x [B, L, d] to the mix y [B, L, d]; arguments as those of a LLaMA block."""
        p = self.pretrained(hidden_states, **arguments)
        e = self.expanded(hidden_states, **arguments)
        keep = self.keep_branches and self.training
        y, w, teacher = self.interpolator(hidden_states, p, e, taught=keep)
        if keep:
            self.branches = (teacher, e, w)
        return y  # type: ignore[no-any-return]


class ControlLlamaModel(LlamaModel):
    """The decoder; it offers no `output_hidden_states`, because hooks would mix in those of the branches."""

    config_class = ControlLlamaConfig
    _can_record_outputs = {"attentions": LlamaAttention}  # noqa: RUF012  # as transformers declares it

    def __init__(self, config: ControlLlamaConfig) -> None:
        super().__init__(config)
        expansion = config.expansion or {"parallel": [], "factor": []}
        kind = INTERPOLATORS.get(expansion.get("interpolator", "lerp"))
        if kind is None:
            raise ModelError(
                f"expansion.interpolator: {expansion['interpolator']!r} is not one of {sorted(INTERPOLATORS)}"
            )
        depth = config.num_hidden_layers
        for number, (index, factor) in enumerate(
            zip(expansion["parallel"], expansion["factor"], strict=True)
        ):
            copy = LlamaDecoderLayer(config, depth + number)
            block = self.layers[index]
            assert isinstance(block, LlamaDecoderLayer)
            self.layers[index] = ParallelBlock(block, copy, kind(config.hidden_size, factor))
        self.post_init()  # type: ignore[no-untyped-call]


class ControlLlamaForCausalLM(LlamaForCausalLM):
    """A LLaMA with parallel blocks and its output head."""

    config_class = ControlLlamaConfig

    def __init__(self, config: ControlLlamaConfig) -> None:
        super(LlamaPreTrainedModel, self).__init__(config)  # that of LlamaForCausalLM makes a LlamaModel
        self.model = ControlLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @staticmethod
    def create_masks_for_generate(**arguments: Any) -> Any:
        """The one causal mask that all blocks share; transformers would make one a layer type."""
        arguments = {name: arguments[name] for name in _MASK_ARGUMENTS if name in arguments}
        return create_causal_mask(**arguments)


_MASK_ARGUMENTS = ("config", "inputs_embeds", "attention_mask", "past_key_values", "position_ids")
AutoConfig.register(ControlLlamaConfig.model_type, ControlLlamaConfig)
AutoModelForCausalLM.register(ControlLlamaConfig, ControlLlamaForCausalLM)


def parallel_blocks(model: nn.Module) -> list[ParallelBlock]:
    """The parallel blocks of a model in forward order; none if it has none."""
    return [module for module in model.modules() if isinstance(module, ParallelBlock)]


def expand(
    model: PreTrainedModel, settings: ControlLlm, seed: int
) -> LlamaForCausalLM | ControlLlamaForCausalLM:
    """Add copies to a LLaMA as the settings say.

    Args:
        model: a LLaMA; its weights become the frozen ones of the result and are not copied.
        settings: structure, blocks, interpolator and factor.
        seed: of the linears in interpolators; the global generator is left as it was.

    Returns:
        The expanded model, in the dtype of `model`, in evaluation mode.

    Raises:
        ModelError: a model that cannot be expanded, or settings that do not fit it.
    """
    if settings.structure == "stack":
        return stack(model, settings.blocks)
    check_expandable(model)
    depth = model.config.num_hidden_layers
    plan = layout(depth, settings.blocks, settings.structure)
    factors = _factors(settings, len(plan.parallel))
    record = {
        "structure": settings.structure,
        "layers": depth,
        "blocks": settings.blocks,
        "added": plan.added,
        "parallel": plan.parallel,
        "interpolator": settings.interpolator,
        "factor": factors,
    }
    config = changed_config(
        model.config, ControlLlamaConfig, num_hidden_layers=len(plan.origin), expansion=record
    )
    base = model.state_dict()
    weights = stacked(base, plan)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for index, factor in zip(plan.parallel, factors, strict=True):
            interpolator = INTERPOLATORS[settings.interpolator](config.hidden_size, factor)
            for name, weight in block_weights(base, plan.origin[index]).items():
                weights[f"model.layers.{index}.pretrained.{name}"] = weights.pop(
                    f"model.layers.{index}.{name}"
                )
                weights[f"model.layers.{index}.expanded.{name}"] = weight.clone()
            for name, weight in interpolator.state_dict().items():
                home = model.device, model.dtype
                weights[f"model.layers.{index}.interpolator.{name}"] = weight.to(*home)
    return assemble(ControlLlamaForCausalLM, config, model, weights)


def step_0_deviation(model: PreTrainedModel, expanded: PreTrainedModel, tokens: Tensor) -> float:
    """Largest absolute difference between the logits of a model and of what it was just expanded to.

    It is 0, bit for bit, for stack and for every interpolator but prog: copies behind add zeros, and a mix
    of equal outputs is that output.

    Args:
        model: the base.
        expanded: what `expand` or `stack` made of it.
        tokens: [B, L] int64, any.

    Raises:
        NumericsError: the difference is not 0, and the interpolator is not prog.
    """
    with torch.no_grad():
        before, after = (each.eval()(input_ids=tokens, use_cache=False).logits for each in (model, expanded))
    deviation = float((before - after).abs().max())
    if deviation != 0 and expanded.config.expansion.get("interpolator") != "prog":
        raise NumericsError(
            f"the expanded model differs from its base by {deviation:g} in a logit before any training; "
            "compare both on the same device and in the same dtype, and check the base for values that are "
            "not finite"
        )
    return deviation


def _factors(settings: ControlLlm, count: int) -> list[float | None]:
    """One factor a parallel block."""
    if settings.factor is None and settings.interpolator in CHOOSING:
        raise ModelError(
            f"factor: null means the copy alone, but the interpolator {settings.interpolator} weighs it "
            "token by token; give a number, or use lerp"
        )
    if not isinstance(settings.factor, list):
        return [settings.factor] * count
    if len(settings.factor) != count:
        raise ModelError(
            f"factor: {len(settings.factor)} values for {count} blocks with a copy beside them; give one for "
            "each, or a single number for all"
        )
    return list(settings.factor)
