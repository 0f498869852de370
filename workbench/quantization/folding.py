"""Where a decoder block lets scales pass: out of one module and into the linears that read its output.

Dividing the channels of a module's output by s and multiplying the columns of the linears by s changes
nothing but the numbers that are quantized (Xiao et al., arXiv 2211.10438, section 4; Lin et al., arXiv
2306.00978, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from workbench.errors import ModelError


@dataclass(frozen=True)
class Fold:
    """A module and the linears of the same block that read its output, and nothing else does.

    Attributes:
        source: dotted name in the block of the norm or linear whose output channels are divided.
        linears: dotted names of the linears whose columns are multiplied.
        module: dotted name of the smallest module with all these linears.
    """

    source: str
    linears: tuple[str, ...]
    module: str


NORMS = (
    Fold("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn"),
    Fold("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "mlp"),
)
LINEARS = (
    Fold("self_attn.v_proj", ("self_attn.o_proj",), "self_attn.o_proj"),
    Fold("mlp.up_proj", ("mlp.down_proj",), "mlp.down_proj"),
)


def folds(block: nn.Module) -> list[Fold]:
    """The folds that a LLaMA block allows, norms first.

    From value to output projection a channel passes only where each head has values of its own: with
    grouped-query attention that fold is left out.

    Raises:
        ModelError: the block has not the modules of a LLaMA block.
    """
    modules = dict(block.named_modules())
    wanted = {name for fold in (*NORMS, *LINEARS) for name in (fold.source, *fold.linears)}
    if missing := sorted(wanted - set(modules)):
        raise ModelError(
            f"{type(block).__name__} has no {', '.join(missing)}; scales are folded in plain LLaMA blocks: "
            "merge an expanded model back first, or take a method without folding, such as gptq"
        )
    return [fold for fold in (*NORMS, *LINEARS) if _passes(modules, fold)]


def apply(block: nn.Module, fold: Fold, scale: Tensor) -> None:
    """Divide the output channels of the source by scale and multiply the columns of the linears, in place.

    Args:
        block: a decoder block.
        fold: one of its folds.
        scale: s [channels], positive.
    """
    for parameter in block.get_submodule(fold.source).parameters():  # [channels] or [channels, in]
        parameter.data.div_(scale.to(parameter.dtype).view(-1, *[1] * (parameter.ndim - 1)))
    for linear in linears_of(block, fold).values():
        linear.weight.data.mul_(scale.to(linear.weight.dtype))


def linears_of(block: nn.Module, fold: Fold) -> dict[str, nn.Linear]:
    """The linears of a fold by dotted name in the block."""
    found = {name: block.get_submodule(name) for name in fold.linears}
    return {name: module for name, module in found.items() if isinstance(module, nn.Linear)}


def _passes(modules: Mapping[str, nn.Module], fold: Fold) -> bool:
    source, first = modules[fold.source], modules[fold.linears[0]]
    if not isinstance(source, nn.Linear) or not isinstance(first, nn.Linear):
        return True
    return source.out_features == first.in_features
