"""The walk over the decoder blocks, written once for all methods: capture, quantize, propagate.

One block at a time, so that the accelerator holds one block and the calibration set. A calibrated
method sees inputs that come out of the quantized blocks before; with true_sequential also out of the
quantized linears before in the same block. Embeddings, norms and head stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench import models
from workbench.errors import DataError, ModelError, NumericsError
from workbench.progress import progress
from workbench.quantization.calibration import Inputs, capture, hessians, propagate, relative_output_error
from workbench.quantization.grid import Grid, check_group_size
from workbench.quantization.huggingface import mark_quantized
from workbench.quantization.linear import AffineLinear, dotted_name, linear_shapes
from workbench.quantization.methods import METHODS, Method
from workbench.recipe.schema import Quantize


@dataclass(frozen=True)
class LayerReport:
    """What quantization did to one linear.

    Attributes:
        name: dotted name in the model.
        shape: [out, in].
        weight_error: ||W - W^|| / ||W||.
        output_error: ||(W - W^) X|| / ||W X|| over the calibration inputs; None without calibration.
        diagnostics: what the method reports; GPTQ damping and dead_columns.
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
        stored_bits: bits on disk of all quantized weights, everything included.
        num_weights: how many weights that is.
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


def quantize(
    model: PreTrainedModel,
    stage: Quantize,
    method: str,
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
        ModelError: the group size does not divide, or the model is quantized already.
        DataError: a calibrated method without calibration text.
        NumericsError: non-finite weights or inputs, or a Hessian that cannot be factored; names the linear.
    """
    chosen, grid = METHODS[method], Grid(bits, stage.group_size, stage.symmetric, stage.mse_grid)
    shapes = linear_shapes(model)
    if not shapes:
        raise ModelError(f"{title}: the model is quantized already; quantize the one it was made from")
    check_group_size(shapes, grid.group_size)
    if chosen.calibrated and not calibration:
        raise DataError(f"{title}: {method} found no calibration text; name sources in `calibration`")

    blocks = models.blocks(model.eval())
    device = device or torch.accelerator.current_accelerator() or torch.device("cpu")
    report = Report(method, bits)
    with torch.no_grad(), _exact_products(), progress(title, len(blocks), "blocks") as advance:
        inputs = capture(model, calibration, device) if chosen.calibrated and calibration else None
        for index, block in enumerate(blocks):
            home = next(block.parameters()).device
            block.to(device)
            name = f"{dotted_name(model, blocks)}.{index}"
            layers = _quantize_block(block, index, name, chosen, stage, grid, inputs)
            if inputs:
                inputs.hidden = propagate(block, index, inputs)
            block.to(home)
            report.layers += layers
            advance(1, weight_error=sum(layer.weight_error for layer in layers) / len(layers))
    _finish(model, report, grid)
    return report


def _quantize_block(
    block: nn.Module,
    index: int,
    name: str,
    method: Method,
    stage: Quantize,
    grid: Grid,
    inputs: Inputs | None,
) -> list[LayerReport]:
    """Quantize the linears of one block in place, those that read the same input as one matrix."""
    subsets = models.subsets(block)
    layers = []
    for together in [[subset] for subset in subsets] if stage.gptq.true_sequential else [subsets]:
        statistics: list[Tensor | None] = [None] * len(together)
        if inputs:
            linears = models.linears(block)
            statistics = [*hessians(block, index, inputs, [linears[subset[0]] for subset in together])]
        for subset, hessian in zip(together, statistics, strict=True):
            try:
                layers += _quantize_subset(block, name, subset, method, stage, grid, hessian)
            except NumericsError as error:
                raise NumericsError(f"{name}.{subset[0]}: {error}") from error
    return layers


def _quantize_subset(
    block: nn.Module,
    block_name: str,
    subset: list[str],
    method: Method,
    stage: Quantize,
    grid: Grid,
    hessian: Tensor | None,
) -> list[LayerReport]:
    if hessian is not None and not bool(torch.isfinite(hessian).all()):
        raise NumericsError(
            "its calibration inputs are NaN or infinite; load the model in float32, or check its weights"
        )
    linears = models.linears(block)
    weights = [linears[name].weight.float() for name in subset]
    quantized, diagnostics = method.quantize(torch.cat(weights), hessian, stage, grid)
    layers = []
    parts = quantized.split([len(weight) for weight in weights])
    for name, weight, part in zip(subset, weights, parts, strict=True):
        approximation = part.dequantize()
        report = LayerReport(
            name=f"{block_name}.{name}",
            shape=(weight.shape[0], weight.shape[1]),
            weight_error=float((weight - approximation).norm() / weight.norm().clamp(min=1e-30)),
            output_error=None if hessian is None else relative_output_error(weight, approximation, hessian),
            diagnostics=diagnostics,
        )
        layers.append(report)
        block.set_submodule(name, AffineLinear.from_weight(part, linears[name].bias))
    return layers


def _finish(model: PreTrainedModel, report: Report, grid: Grid) -> None:
    """Count what is stored, and let the model say of itself how it is quantized."""
    quantized = [module for module in model.modules() if isinstance(module, AffineLinear)]
    report.stored_bits = sum(layer.stored_bits for layer in quantized)
    report.num_weights = sum(layer.in_features * layer.out_features for layer in quantized)
    mark_quantized(model, report.method, grid, g_idx=any(layer.g_idx is not None for layer in quantized))


@contextmanager
def _exact_products() -> Iterator[None]:
    """Hessians need all bits of float32, whatever training allowed before (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
