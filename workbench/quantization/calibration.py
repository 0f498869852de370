"""The calibration set on its way through the blocks, and what calibrated methods learn from it.

Each block sees what the quantized blocks before it put out, so that it can make up for their errors
(Frantar et al., arXiv 2210.17323, published code, "sequential onloading").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from workbench import models
from workbench.quantization.attended import Attended, Batch

# Tokens in one forward pass of a block: a sequence of the usual set, or what small models hold in cache.
BATCH_TOKENS = 2048


@dataclass
class Inputs:
    """Inputs of the next block, and the other arguments of all blocks.

    Attributes:
        hidden: one a batch, [sequences, tokens, hidden].
        arguments: for each block, for each batch: masks, positions and the like.
    """

    hidden: list[Tensor]
    arguments: list[list[dict[str, Any]]]

    def batches(self, index: int) -> list[Batch]:
        """What the block of that index is called with, for each batch."""
        return [*zip(self.hidden, self.arguments[index], strict=True)]


class Statistics:
    """What the inputs of a linear are like, over all calibration tokens.

    Kept as running means and maxima in float32, so that they neither grow with the calibration set nor
    depend on how the set is cut into batches.

    Attributes:
        hessian: H [in, in] = 2/N * sum of x x^T over the N tokens seen, the Hessian of the squared output
            error of any row of W.
        mean_abs: [in], mean of |x|.
        max_abs: [in], largest |x|.
        num_tokens: N.
    """

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.hessian = torch.zeros(in_features, in_features, device=device)
        self.mean_abs = torch.zeros(in_features, device=device)
        self.max_abs = torch.zeros(in_features, device=device)
        self.num_tokens = 0

    def update(self, inputs: Tensor) -> None:
        """Add the tokens of inputs [..., in], any float dtype."""
        x = inputs.reshape(-1, inputs.shape[-1]).float()  # [tokens, in]
        total = self.num_tokens + x.shape[0]
        kept = self.num_tokens / total
        self.hessian.addmm_(x.T, x, beta=kept, alpha=2 / total)
        magnitude = x.abs()
        self.mean_abs = kept * self.mean_abs + magnitude.sum(0) / total
        self.max_abs = torch.maximum(self.max_abs, magnitude.amax(0))
        self.num_tokens = total

    def fold(self, scale: Tensor) -> None:
        """Make it the statistics of inputs that are divided by a scale [in], positive."""
        self.hessian = self.hessian / torch.outer(scale, scale)
        self.mean_abs, self.max_abs = self.mean_abs / scale, self.max_abs / scale

    @property
    def dead_columns(self) -> int:
        """Inputs that are always 0."""
        return int((self.max_abs == 0).sum())


def capture(model: PreTrainedModel, sequences: list[Tensor], device: torch.device) -> Inputs:
    """What the blocks are called with, for all calibration sequences.

    The blocks are swapped for recorders that hand their input on, so that the model's own forward
    computes embeddings, masks and positions, and nothing else.

    Args:
        model: a decoder-only model.
        sequences: token ids, [tokens] or [sequences, tokens] each.
        device: where the blocks will run.
    """
    blocks = models.blocks(model)
    originals = list(blocks)
    recorders = [_Recorder(device) for _ in originals]
    home = next(model.get_input_embeddings().parameters()).device
    try:
        for index, recorder in enumerate(recorders):
            blocks[index] = recorder
        for batch in batches(sequences):
            model.base_model(input_ids=batch.to(home), use_cache=False)
    finally:
        for index, original in enumerate(originals):
            blocks[index] = original
    return Inputs(recorders[0].hidden, [recorder.arguments for recorder in recorders])


def propagate(block: nn.Module, index: int, inputs: Inputs, attended: Attended | None = None) -> list[Tensor]:
    """Outputs of the block of that index, for each batch; attention from what is kept, if it is."""
    outputs = []
    with (attended or Attended()).standing_in(block):
        for hidden, arguments in inputs.batches(index):
            output = block(hidden, **arguments)
            outputs.append(output[0] if isinstance(output, tuple) else output)
    return outputs


def statistics(
    block: nn.Module,
    index: int,
    inputs: Inputs,
    linears: list[nn.Linear],
    attended: Attended | None = None,
) -> list[Statistics]:
    """Statistics of the inputs of each of these linears, in forward order, from one pass.

    The pass ends at the last of them, because nothing more is wanted from the block.

    Args:
        block: a decoder block.
        index: its place in the model.
        inputs: its calibration inputs.
        linears: some of its linears.
        attended: where attention is kept for the passes after and taken from, if the linears of the block
            are quantized in forward order and these are the next.
    """
    collected = [Statistics(linear.in_features, linear.weight.device) for linear in linears]
    with ExitStack() as around:
        if attended:
            around.enter_context(attended.standing_in(block))
            around.enter_context(attended.keeping(block, inputs.batches(index)[0]))
        around.enter_context(_hooks(linears, collected, stop=True))
        for hidden, arguments in inputs.batches(index):
            with suppress(_Collected):
                block(hidden, **arguments)
    return collected


def observe(block: nn.Module, index: int, inputs: Inputs) -> tuple[list[Tensor], dict[str, Statistics]]:
    """Outputs of the block of that index, and what its linears read, from one pass.

    Returns:
        Outputs for each batch; statistics by the first of the linears that read the same input.
    """
    linears, first = models.linears(block), [names[0] for names in models.subsets(block)]
    collected = [Statistics(linears[name].in_features, linears[name].weight.device) for name in first]
    with _hooks([linears[name] for name in first], collected, stop=False):
        outputs = propagate(block, index, inputs)
    return outputs, dict(zip(first, collected, strict=True))


def relative_output_error(weight: Tensor, approximation: Tensor, hessian: Tensor) -> float:
    """||(W - W^) X|| / ||W X|| over the calibration inputs, from their second moments alone.

    Args:
        weight: W [out, in].
        approximation: W^ [out, in].
        hessian: H [in, in], any multiple of X X^T.
    """
    error = weight - approximation
    numerator, denominator = (float((e @ hessian * e).sum().clamp(min=0)) for e in (error, weight))
    return (numerator / denominator) ** 0.5 if denominator else 0.0


def batches(sequences: list[Tensor]) -> Iterator[Tensor]:
    """Token ids [sequences, tokens] of neighbouring sequences of one length, BATCH_TOKENS at a time."""
    rows = [row for tokens in sequences for row in torch.atleast_2d(tokens)]
    for length, same_length in groupby(rows, key=len):
        yield from torch.stack(list(same_length)).split(max(1, BATCH_TOKENS // length))


@contextmanager
def exact_products() -> Iterator[None]:
    """Hessians need all bits of float32, whatever training allowed before (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Collected(Exception):
    """All inputs that were wanted have been seen."""


@contextmanager
def _hooks(linears: list[nn.Linear], collected: list[Statistics], *, stop: bool) -> Iterator[None]:
    """Let a pass update the statistics of these linears, and stop at the last of them or not."""

    def collect(seen: Statistics) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.update(args[0])
            if stop and seen is collected[-1]:
                raise _Collected

        return hook

    handles = [
        linear.register_forward_pre_hook(collect(seen))
        for linear, seen in zip(linears, collected, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(nn.Module):
    """Stands in for a block: keeps what it is called with, and hands its input on."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.hidden: list[Tensor] = []
        self.arguments: list[dict[str, Any]] = []

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        self.hidden.append(hidden_states.to(self.device))
        self.arguments.append(tree_map_only(Tensor, lambda tensor: tensor.to(self.device), arguments))
        return hidden_states
