"""The walk over the decoder blocks, written once for all methods: capture, quantize, propagate.

One block at a time, so that the accelerator holds one block and the calibration set. A calibrated
method sees inputs that come out of the quantized blocks before, unless it wants those of the unquantized
ones; with true_sequential also out of the quantized linears before in the same block. Embeddings, head
and final norm stay as they are; norms of a block change only by what a method folds into them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench import models
from workbench.errors import DataError, ModelError, NumericsError
from workbench.progress import progress
from workbench.quantization.activations import Activations
from workbench.quantization.allocation import Allotted
from workbench.quantization.attended import Attended
from workbench.quantization.calibration import (
    Inputs,
    Statistics,
    capture,
    exact_products,
    observe,
    propagate,
    relative_output_error,
    statistics,
)
from workbench.quantization.finished import Finished, LayerReport
from workbench.quantization.formats import Weight
from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import check_group_size
from workbench.quantization.huggingface import mark_quantized, num_weights, quantized_linears
from workbench.quantization.linear import QuantizedLinear, dotted_name, linear_shapes
from workbench.quantization.methods import METHODS, Method, Plan
from workbench.recipe.quantization import UNGROUPED
from workbench.recipe.quantize import Quantize


@dataclass
class Report:
    """What quantization did to a model.

    Attributes:
        method: name in the recipe.
        nominal_bits: what the method's paper says a weight takes.
        stored_bits: bits on disk of all quantized weights, everything included.
        num_weights: how many weights that is.
        layers: one entry a linear, in forward order.
    """

    method: str
    nominal_bits: float
    stored_bits: int = 0
    num_weights: int = 0
    layers: list[LayerReport] = field(default_factory=list)

    @property
    def real_bits(self) -> float:
        """Stored bits per quantized weight."""
        return self.stored_bits / self.num_weights

    @property
    def warnings(self) -> list[str]:
        """What a reader must know: Hessians that were singular, and what was done about them."""
        said = []
        for done, words in (("extra_damping", "more damping"), ("rounded", "plain rounding")):
            count = sum(done in layer.diagnostics for layer in self.layers)
            if count:
                said.append(f"{count} of {len(self.layers)} linears had a singular Hessian and took {words}")
        return said


@dataclass(frozen=True)
class _Task:
    """What is done to every block."""

    method: Method
    plan: Plan
    finished: Finished
    allotted: Mapping[str, Allotted]

    @property
    def activations(self) -> Activations | None:
        return self.method.activations(self.plan) if self.method.activations else None


def quantize(
    model: PreTrainedModel,
    stage: Quantize,
    method: str,
    bits: float,
    calibration: list[Tensor] | None,
    title: str,
    seed: int = 0,
    device: torch.device | None = None,
    unfinished: Path | None = None,
    allotted: Mapping[str, Allotted] | None = None,
    fill: Callable[[str], None] = lambda block: None,
) -> Report:
    """Replace the linears of the decoder blocks by quantized ones, in place.

    Args:
        model: any decoder-only model; it is put in evaluation mode.
        stage: grid and method settings; its lists of methods, bits and groups are not looked at.
        method: one of the recipe's methods.
        bits: 1 to 8; with `allotted` their budget, which is not looked at.
        calibration: token ids, [tokens] or [sequences, tokens] each; only calibrated methods look at it.
        title: what the progress display says.
        seed: of methods that draw at random.
        device: where blocks are quantized, one at a time; default: the accelerator, if there is one.
        unfinished: folder for finished blocks and layers.jsonl; a stopped quantization with all the same
            arguments goes on from what is there.
        allotted: a width for every linear, by name, instead of one for all.
        fill: brings the weights of a block, given by its dotted name, before it is its turn, where the model
            is held without them.

    Raises:
        ModelError: the group size does not divide, or the model is quantized already.
        DataError: a calibrated method without calibration text.
        NumericsError: non-finite weights or inputs, or a Hessian that cannot be factored; names the linear.
    """
    chosen, allotted = METHODS[method], allotted or {}
    plan = Plan(stage, bits, seed, {name: own.bits for name, own in allotted.items()})
    shapes = linear_shapes(model)
    if not shapes:
        raise ModelError(f"{title}: the model is quantized already; quantize the one it was made from")
    if method not in UNGROUPED:
        check_group_size(shapes, stage.group_size)
    if chosen.calibrated and not calibration:
        raise DataError(f"{title}: {method} found no calibration text; name sources in `calibration`")

    blocks = models.blocks(model.eval())
    device = device or torch.accelerator.current_accelerator() or torch.device("cpu")
    report, task = Report(method, bits), _Task(chosen, plan, Finished(unfinished), allotted)
    with torch.no_grad(), exact_products(), progress(title, len(blocks), "blocks") as advance:
        inputs = capture(model, calibration, device) if chosen.calibrated and calibration else None
        for index, block in enumerate(blocks):
            name = f"{dotted_name(model, blocks)}.{index}"
            fill(name)
            home = next(block.parameters()).device
            block.to(device)
            layers = _advance(block, index, name, task, inputs, last=index + 1 == len(blocks))
            block.to(home)
            report.layers += layers
            advance(1, weight_error=sum(layer.weight_error for layer in layers) / len(layers))
    linears = quantized_linears(model).values()
    report.stored_bits = sum(layer.stored_bits for layer in linears)
    report.num_weights = num_weights(linears)
    if allotted:
        taken = sum(rows * columns * allotted[name].bits for name, (rows, columns) in shapes.items())
        report.nominal_bits = taken / report.num_weights
    mark_quantized(model, method, report.nominal_bits)
    return report


def _advance(
    block: nn.Module, index: int, name: str, task: _Task, inputs: Inputs | None, *, last: bool
) -> list[LayerReport]:
    """Quantize a block in place, or take the finished one, and make its outputs the next block's inputs."""
    outputs: list[Tensor] | None = None
    seen: dict[str, Statistics] = {}
    if inputs and task.method.prepare:
        outputs, seen = observe(block, index, inputs)
    layers, attended = task.finished.load(index, block, task.activations), Attended()
    if layers is None:
        layers = _quantize_block(block, index, name, task, inputs, seen, attended)
        task.finished.save(index, block, layers)
    else:
        for layer in layers:
            task.finished.tell(layer)
    if inputs and not last:
        inputs.hidden = outputs or propagate(block, index, inputs, attended)
    return layers


def _quantize_block(
    block: nn.Module,
    index: int,
    name: str,
    task: _Task,
    inputs: Inputs | None,
    seen: dict[str, Statistics],
    attended: Attended,
) -> list[LayerReport]:
    """Quantize the linears of one block in place, those that read the same input together.

    A method that prepares the block goes by what was seen of all linears before, whose errors then do not
    make up for each other. With inputs out of the quantized linears before, attention is kept in `attended`.
    """
    plan, prepare = task.plan.within(name), task.method.prepare
    if inputs and prepare:
        try:
            prepare(block, inputs.batches(index), seen, plan)
        except NumericsError as error:
            raise NumericsError(f"{name}: {error}") from error
    subsets = models.subsets(block)
    sequential = task.plan.stage.gptq.true_sequential and not prepare
    layers = []
    for together in [[subset] for subset in subsets] if sequential else [subsets]:
        if inputs and not prepare:
            linears, first = models.linears(block), [subset[0] for subset in together]
            wanted = [linears[linear] for linear in first]
            found = statistics(block, index, inputs, wanted, attended if sequential else None)
            seen = dict(zip(first, found, strict=True))
        for subset in together:
            try:
                layers += _quantize_subset(block, name, subset, replace(task, plan=plan), seen.get(subset[0]))
            except NumericsError as error:
                raise NumericsError(f"{name}.{subset[0]}: {error}") from error
    return layers


def _quantize_subset(
    block: nn.Module,
    block_name: str,
    subset: list[str],
    task: _Task,
    seen: Statistics | None,
) -> list[LayerReport]:
    if seen is not None and not bool(torch.isfinite(seen.hessian).all()):
        raise NumericsError(
            "its calibration inputs are NaN or infinite; load the model in float32, or check its weights"
        )
    linears = models.linears(block)
    quantized = _by_width(linears, subset, task, seen)
    layers = []
    for name in subset:
        weight, (part, said) = linears[name].weight.float(), quantized[name]
        if own := task.allotted.get(f"{block_name}.{name}"):
            said = said | {"width": float(own.bits), "divergence": own.divergences[own.bits]}
        layer = _report(f"{block_name}.{name}", weight, part, seen, said)
        layers.append(layer)
        task.finished.tell(layer)
        shape = (weight.shape[0], weight.shape[1])
        kept = QuantizedLinear.from_weight(part, shape, linears[name].bias, task.activations)
        block.set_submodule(name, kept)
    return layers


def _by_width(
    linears: Mapping[str, nn.Linear], subset: list[str], task: _Task, seen: Statistics | None
) -> dict[str, tuple[Weight, dict[str, float]]]:
    """Quantized weight of each linear, and what was worth recording.

    Those of one width are quantized together; all see the same statistics.
    """
    found: dict[str, tuple[Weight, dict[str, float]]] = {}
    plans = {name: task.plan.of(name) for name in subset}
    for bits in dict.fromkeys(plan.bits for plan in plans.values()):
        names = [name for name in subset if plans[name].bits == bits]
        weights = [linears[name].weight.float() for name in names]
        quantized, diagnostics = task.method.quantize(weights, seen, plans[names[0]])
        found |= {name: (part, diagnostics) for name, part in zip(names, quantized, strict=True)}
    return found


def _report(
    name: str, weight: Tensor, quantized: Weight, seen: Statistics | None, diagnostics: dict[str, float]
) -> LayerReport:
    """Compare a matrix with what it was quantized to."""
    approximation = quantized.dequantize()
    measured = dict(diagnostics)
    if seen is not None:
        measured["dead_columns"] = float(seen.dead_columns)
    if isinstance(quantized, AffineWeight):
        measured["clipped_share"] = quantized.clipped_share(weight)
    return LayerReport(
        name=name,
        shape=(weight.shape[0], weight.shape[1]),
        bits=quantized.stored_bits / weight.numel(),
        weight_error=float((weight - approximation).norm() / weight.norm().clamp(min=1e-30)),
        output_error=None if seen is None else relative_output_error(weight, approximation, seen.hessian),
        diagnostics=measured,
    )
