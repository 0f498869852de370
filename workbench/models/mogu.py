"""MoGU (arXiv 2405.14488): a model whose output projections weigh two responders per token (routing.py).

The first k answer tokens are routed, k = 5 in the paper, and the base goes on from there. It reads prompt and
answer anew, into a cache of its own, so that it says what the stock model would say behind the same text. A
forward pass outside of `generate` is routed at every token.

`config.mogu` is all that is needed to build the model; importing this module registers it with transformers'
auto classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from workbench.errors import ModelError
from workbench.models.expansion import assemble, changed_config
from workbench.models.routing import ALWAYS, MoguProjection, Responder, Routing, Steering
from workbench.models.walk import blocks


class MoguModel(PreTrainedModel, GenerationMixin):
    """What a causal language model with routed projections adds to its architecture."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.steering = Steering()
        self._prompt_tokens = 0
        if config.mogu:
            for block in blocks(self):
                attention: Any = block.self_attn
                attention.o_proj = MoguProjection(attention.o_proj, Routing(**config.mogu), self.steering)

    @torch.no_grad()
    def generate(self, *arguments: Any, **options: Any) -> Any:
        """Generate as transformers do, the first k tokens routed, the others by the base."""
        with responding(self, self.steering.responder):
            return super().generate(*arguments, **options)  # type: ignore[misc]

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,  # by this name, or transformers takes the arguments of `forward` for typos
    ) -> Any:
        """Hand over to the base after k tokens: it reads prompt and answer anew, into a cache of its own."""
        k = self.config.mogu["router_tokens"]
        cached = 0 if past_key_values is None else past_key_values.get_seq_length()
        if is_first_iteration:
            self._prompt_tokens = input_ids.shape[1]
            if k != ALWAYS and (cached or inputs_embeds is not None):
                raise ModelError(
                    f"router_tokens: the base reads the prompt anew after {k} tokens, so generation starts "
                    "from token ids and an empty cache; give those, or set router_tokens to -1"
                )
        if self.steering.responder == "routed" and ALWAYS != k <= input_ids.shape[1] - self._prompt_tokens:
            self.steering.responder = "base"
            if cached:
                past_key_values, next_sequence_length = DynamicCache(config=self.config), None
        return super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )


@strict
class MoguLlamaConfig(LlamaConfig):
    """The configuration of a LLaMA with routed projections; `mogu` holds the fields of `Routing`."""

    model_type = "mogu_llama"
    mogu: dict[str, Any] | None = None


class MoguLlamaForCausalLM(MoguModel, LlamaForCausalLM):
    """A LLaMA with routed projections."""

    config_class = MoguLlamaConfig


@strict
class MoguMistralConfig(MistralConfig):
    """The configuration of a Mistral with routed projections."""

    model_type = "mogu_mistral"
    mogu: dict[str, Any] | None = None


class MoguMistralForCausalLM(MoguModel, MistralForCausalLM):
    """A Mistral with routed projections."""

    config_class = MoguMistralConfig


@strict
class MoguQwen2Config(Qwen2Config):
    """The configuration of a Qwen2 with routed projections."""

    model_type = "mogu_qwen2"
    mogu: dict[str, Any] | None = None


class MoguQwen2ForCausalLM(MoguModel, Qwen2ForCausalLM):
    """A Qwen2 with routed projections."""

    config_class = MoguQwen2Config


@strict
class MoguQwen3Config(Qwen3Config):
    """The configuration of a Qwen3 with routed projections."""

    model_type = "mogu_qwen3"
    mogu: dict[str, Any] | None = None


class MoguQwen3ForCausalLM(MoguModel, Qwen3ForCausalLM):
    """A Qwen3 with routed projections."""

    config_class = MoguQwen3Config


ARCHITECTURES: dict[Any, Any] = {
    LlamaForCausalLM: MoguLlamaForCausalLM,
    MistralForCausalLM: MoguMistralForCausalLM,
    Qwen2ForCausalLM: MoguQwen2ForCausalLM,
    Qwen3ForCausalLM: MoguQwen3ForCausalLM,
}
for _routed in ARCHITECTURES.values():
    AutoConfig.register(_routed.config_class.model_type, _routed.config_class)
    AutoModelForCausalLM.register(_routed.config_class, _routed)


def projections(model: nn.Module) -> list[MoguProjection]:
    """The routed projections of a model in forward order; none if it has none."""
    return [module for module in model.modules() if isinstance(module, MoguProjection)]


@contextmanager
def responding(model: MoguModel, responder: Responder) -> Iterator[None]:
    """Let one responder answer, and afterwards whoever answered before."""
    before = model.steering.responder
    model.steering.responder = responder
    try:
        yield
    finally:
        model.steering.responder = before


def add_responders(model: PreTrainedModel, routing: Routing, seed: int) -> MoguModel:
    """Put two responders and their routers beside the output projections of a model.

    Both updates are zero at first, so each responder is the base.

    Args:
        model: a stock model; its weights become those of the result and are not copied.
        routing: sizes.
        seed: of A and of the routers; the global generator is left as it was.

    Returns:
        The model in the dtype of `model`, in evaluation mode.

    Raises:
        ModelError: an architecture without a routed counterpart, a quantized model, or sizes out of range.
    """
    _check(model, routing)
    kind = ARCHITECTURES[type(model)]
    config = changed_config(model.config, kind.config_class, mogu=asdict(routing))
    weights = {
        name.replace(".o_proj.", ".o_proj.base."): weight for name, weight in model.state_dict().items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for index, block in enumerate(blocks(model)):
            linear: Any = block.self_attn
            added = MoguProjection(linear.o_proj, routing, Steering())
            for name, parameter in added.named_parameters():
                if not name.startswith("base."):
                    if parameter.dim() == 2 and not name.endswith(".B"):
                        nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))  # as nn.Linear draws
                    weights[f"model.layers.{index}.self_attn.o_proj.{name}"] = parameter.detach().to(
                        model.device, model.dtype
                    )
    made: MoguModel = assemble(kind, config, model, weights)
    return made


def fold(model: MoguModel) -> None:
    """Replace the factors of every router by their product, in place; the outputs stay the same."""
    for projection in projections(model):
        for router in (projection.unwilling_router, projection.glad_router):
            product = router.product().detach()
            router.factors = nn.ParameterList([nn.Parameter(product, requires_grad=False)])
    model.config.mogu = {**model.config.mogu, "router_width": None}


def merge_responders(model: MoguModel, a: float, b: float) -> PreTrainedModel:
    """The stock model of constant shares: (1, 0) is the unwilling responder, (0, 1) the glad one.

    Args:
        model: with routed projections, not quantized; the weights of both share memory where they are equal.
        a: share of the unwilling responder.
        b: share of the glad one.

    Raises:
        ModelError: the model is quantized.
    """
    if getattr(model, "is_quantized", False):
        raise ModelError("a quantized model cannot be merged; merge the responders first, then quantize")
    kind = next(stock for stock, routed in ARCHITECTURES.items() if routed is type(model))
    added = (".unwilling.", ".glad.", ".unwilling_router.", ".glad_router.")
    weights = {
        name.replace(".o_proj.base.", ".o_proj."): weight
        for name, weight in model.state_dict().items()
        if not any(part in name for part in added)
    }
    with torch.no_grad():
        for index, projection in enumerate(projections(model)):
            name = f"model.layers.{index}.self_attn.o_proj"
            weights[f"{name}.weight"] = projection.merged(a, b)
            if projection.base.bias is not None:
                weights[f"{name}.bias"] = (a + b) * projection.base.bias
    config = changed_config(model.config, kind.config_class)
    del config.mogu
    made: PreTrainedModel = assemble(kind, config, model, weights)
    return made


def _check(model: PreTrainedModel, routing: Routing) -> None:
    if type(model) not in ARCHITECTURES:
        known = ", ".join(kind.__name__ for kind in ARCHITECTURES)
        raise ModelError(f"{type(model).__name__} cannot be routed; MoGU knows {known}")
    if getattr(model, "is_quantized", False):
        raise ModelError("the model is quantized; add responders to the model that it was made from")
    if routing.rank < 1 or (routing.router_width is not None and routing.router_width < 1):
        raise ModelError(
            f"rank {routing.rank}, router_width {routing.router_width}: both must be at least 1, or "
            "router_width null for a router that is one vector"
        )
    if routing.router_tokens < ALWAYS:
        raise ModelError(f"router_tokens: {routing.router_tokens} is below -1; -1 routes every token")
