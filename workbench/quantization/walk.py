"""The walk over the decoder blocks: capture inputs, quantize, propagate; one block at a time.

Each block sees what the quantized blocks before it put out, so that it can make up for their errors
(Frantar et al., arXiv 2210.17323, section 3.3 and its published code, "sequential onloading"). With
true_sequential the linears within a block do so too. Embeddings, norms and head stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from workbench import models
from workbench.errors import DataError, ModelError, NumericsError
from workbench.progress import progress
from workbench.quantization.grid import Grid, check_group_size
from workbench.quantization.huggingface import mark_quantized
from workbench.quantization.linear import AffineLinear, dotted_name, linear_shapes
from workbench.quantization.methods import METHODS, Method
from workbench.quantization.statistics import Hessian, relative_output_error
from workbench.recipe.schema import QuantizationMethod, Quantize

BATCH_TOKENS = 8192  # calibration tokens in one forward pass of a block


@dataclass(frozen=True)
class LayerReport:
    """What quantization did to one linear.

    Attributes:
        name: dotted name in the model.
        shape: [out, in].
        weight_error: ||W - W^|| / ||W||.
        output_error: ||(W - W^) X|| / ||W X|| over the calibration inputs; None without calibration.
        diagnostics: what the method reports: damping, dead_columns.
    """

    name: str
    shape: tuple[int, int]
    weight_error: float
    output_error: float | None
    diagnostics: dict[str, float]


@dataclass
class Report:
    """What quantization did to a model.

    Attributes:
        method: name in the recipe.
        nominal_bits: width of a code.
        stored_bits: bits on disk of all quantized linears, everything included.
        num_weights: weights in them.
        layers: one entry a linear, in forward order.
    """

    method: str
    nominal_bits: int
    stored_bits: int = 0
    num_weights: int = 0
    layers: list[LayerReport] = field(default_factory=list)

    @property
    def real_bits(self) -> float:
        """Stored bits per quantized weight."""
        return self.stored_bits / self.num_weights


@dataclass
class Inputs:
    """The calibration set on its way through the blocks.

    Attributes:
        hidden: a batch each, [sequences, tokens, hidden], inputs of the next block.
        arguments: for each block, for each batch, the other arguments of the block (masks, positions).
    """

    hidden: list[Tensor]
    arguments: list[list[dict[str, Any]]]


def quantize(
    model: PreTrainedModel,
    stage: Quantize,
    method: QuantizationMethod,
    bits: int,
    calibration: list[Tensor] | None,
    title: str,
    device: torch.device | None = None,
) -> Report:
    """Replace the linears of the decoder blocks by quantized ones, in place.

    Args:
        model: any decoder-only model; it is put in evaluation mode.
        stage: grid and method settings; its lists of methods and bits are not looked at.
        method: one of the recipe's methods.
        bits: 1 to 8.
        calibration: token ids, [tokens] or [sequences, tokens] each; only calibrated methods look at it.
        title: what the progress display says.
        device: where blocks are quantized, one at a time; default: the accelerator, if there is one.

    Raises:
        ModelError: the group size does not divide, or the model has no unquantized linears.
        DataError: a calibrated method without calibration text.
        NumericsError: non-finite weights or inputs, or a Hessian that cannot be factored; names the linear.
    """
    chosen = METHODS[method]
    grid = Grid(bits, stage.group_size, stage.symmetric, stage.mse_grid)
    blocks = models.blocks(model)
    shapes = linear_shapes(model)
    if not shapes:
        raise ModelError(f"{title}: the decoder blocks have no linears left; quantize the unquantized model")
    check_group_size(shapes, grid.group_size)
    if chosen.calibrated and not calibration:
        raise DataError(f"{title}: {method} needs calibration text, found none; name sources in quantize.calibration")
    device = device or torch.accelerator.current_accelerator() or torch.device("cpu")

    model.eval()
    report = Report(method, bits)
    prefix = dotted_name(model, blocks)
    with torch.no_grad(), _exact_products(), progress(title, len(blocks), "blocks") as advance:
        inputs = capture(model, calibration, device) if chosen.calibrated and calibration else None
        for index, block in enumerate(blocks):
            home = next(block.parameters()).device
            block.to(device)
            layers = quantize_block(block, f"{prefix}.{index}", chosen, stage, grid, inputs, index)
            if inputs is not None:
                inputs.hidden = propagate(block, inputs, index)
            block.to(home)
            report.layers += layers
            errors = [layer.weight_error if layer.output_error is None else layer.output_error for layer in layers]
            advance(1, error=sum(errors) / len(errors))
    quantized = [module for module in blocks.modules() if isinstance(module, AffineLinear)]
    report.stored_bits = sum(layer.stored_bits for layer in quantized)
    report.num_weights = sum(layer.in_features * layer.out_features for layer in quantized)
    mark_quantized(model, method, grid, g_idx=any(layer.g_idx is not None for layer in quantized))
    return report


def capture(model: PreTrainedModel, calibration: list[Tensor], device: torch.device) -> Inputs:
    """Inputs of the first block, and the other arguments of all blocks.

    The blocks are swapped for recorders that hand their input on, so that the model's own forward
    computes embeddings, masks and positions, and nothing else.
    """
    blocks = models.blocks(model)
    originals = list(blocks)
    recorders = [_Recorder(device) for _ in originals]
    home = model.get_input_embeddings().weight.device
    try:
        for index, recorder in enumerate(recorders):
            blocks[index] = recorder
        for batch in _batches(calibration):
            model.base_model(input_ids=batch.to(home), use_cache=False)
    finally:
        for index, original in enumerate(originals):
            blocks[index] = original
    return Inputs(recorders[0].hidden, [recorder.arguments for recorder in recorders])


def quantize_block(
    block: nn.Module, name: str, method: Method, stage: Quantize, grid: Grid, inputs: Inputs | None, index: int
) -> list[LayerReport]:
    """Quantize the linears of one block in place, those that share an input as one matrix."""
    subsets = models.subsets(block)
    rounds = [[subset] for subset in subsets] if stage.gptq.true_sequential else [subsets]
    layers = []
    for round_subsets in rounds:
        hessians = [None] * len(round_subsets) if inputs is None else _hessians(block, round_subsets, inputs, index)
        for subset, hessian in zip(round_subsets, hessians, strict=True):
            try:
                layers += _quantize_subset(block, name, subset, method, stage, grid, hessian)
            except NumericsError as error:
                raise NumericsError(f"{name}.{subset[0]}: {error}") from error
    return layers


def propagate(block: nn.Module, inputs: Inputs, index: int) -> list[Tensor]:
    """Outputs of a block for each batch of its inputs."""
    outputs = []
    for hidden, arguments in zip(inputs.hidden, inputs.arguments[index], strict=True):
        output = block(hidden, **arguments)
        outputs.append(output[0] if isinstance(output, tuple) else output)
    return outputs


def _quantize_subset(
    block: nn.Module,
    block_name: str,
    names: list[str],
    method: Method,
    stage: Quantize,
    grid: Grid,
    hessian: Tensor | None,
) -> list[LayerReport]:
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise NumericsError(
            "its calibration inputs are NaN or infinite; load the model in a wider dtype, or check its weights"
        )
    linears = [block.get_submodule(name) for name in names]
    weights = [linear.weight.float() for linear in linears if isinstance(linear, nn.Linear)]
    stacked, diagnostics = method.quantize(torch.cat(weights), hessian, stage, grid)
    layers = []
    parts = stacked.split([len(weight) for weight in weights])
    for name, linear, weight, part in zip(names, linears, weights, parts, strict=True):
        approximation = part.dequantize()
        layers.append(
            LayerReport(
                name=f"{block_name}.{name}",
                shape=(weight.shape[0], weight.shape[1]),
                weight_error=float((weight - approximation).norm() / weight.norm().clamp(min=1e-30)),
                output_error=None if hessian is None else relative_output_error(weight, approximation, hessian),
                diagnostics=diagnostics,
            )
        )
        block.set_submodule(name, AffineLinear.from_weight(part, linear.bias))
    return layers


def _hessians(block: nn.Module, subsets: list[list[str]], inputs: Inputs, index: int) -> list[Tensor]:
    """The Hessian of the input that each subset of linears shares, from one pass over the calibration set."""
    hessians, hooks = [], []
    for subset in subsets:
        linear = block.get_submodule(subset[0])
        assert isinstance(linear, nn.Linear)
        hessian = Hessian(linear.in_features, linear.weight.device)
        hooks.append(linear.register_forward_pre_hook(_updates(hessian)))
        hessians.append(hessian)
    try:
        propagate(block, inputs, index)
    finally:
        for hook in hooks:
            hook.remove()
    return [hessian.matrix for hessian in hessians]


def _updates(hessian: Hessian) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, args: hessian.update(args[0])


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


def _batches(calibration: list[Tensor]) -> Iterator[Tensor]:
    """Token ids [sequences, tokens] of neighbouring sequences of one length, BATCH_TOKENS at a time."""
    rows = [row for tokens in calibration for row in torch.atleast_2d(tokens)]
    for length, same_length in groupby(rows, key=len):
        yield from torch.stack(list(same_length)).split(max(1, BATCH_TOKENS // length))


@contextmanager
def _exact_products() -> Iterator[None]:
    """Hessians need all bits of float32, whatever training allowed before (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
