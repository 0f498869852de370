"""The quantization methods, one a file, and the table from the name in a recipe to the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from workbench import models
from workbench.quantization.activations import Activations
from workbench.quantization.attended import Batch
from workbench.quantization.calibration import Statistics
from workbench.quantization.formats import Weight
from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid
from workbench.quantization.hessian import factored
from workbench.quantization.methods import (
    awq,
    billm,
    gptq,
    hqq,
    int8,
    ir_qlora,
    nf4,
    pb_llm,
    quip,
    rtn,
    slim_llm,
    smoothquant,
)
from workbench.recipe.quantize import Quantize

Quantized = tuple[list[Weight], dict[str, float]]


@dataclass(frozen=True)
class Plan:
    """What a recipe wants of one variant.

    Attributes:
        stage: its section; lists of methods, bits and groups are not looked at.
        bits: nominal bits a weight.
        seed: of whatever is random.
        widths: bits of the linears that have other ones, by dotted name.
    """

    stage: Quantize
    bits: float
    seed: int
    widths: Mapping[str, int] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Which grids may be used."""
        return Grid(int(self.bits), self.stage.group_size, self.stage.symmetric, self.stage.mse_grid)

    def of(self, linear: str) -> Plan:
        """The plan of one linear."""
        return replace(self, bits=self.widths.get(linear, self.bits), widths={})

    def within(self, module: str) -> Plan:
        """The plan of a module, whose linears then go by their names in it."""
        prefix = f"{module}."
        own = {n.removeprefix(prefix): bits for n, bits in self.widths.items() if n.startswith(prefix)}
        return replace(self, widths=own)


@dataclass(frozen=True)
class Method:
    """A method as the walk over the blocks sees it.

    Attributes:
        quantize: from the weights [out, in] of linears that share an input, its statistics (None where the
            method is not calibrated) and the plan to the quantized weights, one each, and what is worth
            recording.
        calibrated: whether it needs calibration text.
        prepare: changes a block before its linears are quantized, in place, as by folding scales from one
            module into the next; from the block, its calibration inputs, the statistics of what its linears
            read, by the first that reads it, and the plan. The statistics follow what it changes. Each block
            then sees what the unquantized blocks before it put out.
        activations: how inputs of the quantized linears are rounded.
    """

    quantize: Callable[[list[Tensor], Statistics | None, Plan], Quantized]
    calibrated: bool = False
    prepare: Callable[[nn.Module, list[Batch], dict[str, Statistics], Plan], None] | None = None
    activations: Callable[[Plan], Activations] | None = None


def _rtn(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    return _stacked(weights, lambda W: rtn.quantize(W, plan.grid)), {}


def _gptq(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    cfg = plan.stage.gptq

    def stacked(H: Tensor) -> list[Weight]:
        return _stacked(weights, lambda W: gptq.quantize(W, H, cfg, plan.grid))

    quantized, done = factored(stacked, _hessian(statistics), plan.stage.on_singular)
    return quantized, {"damping": cfg.damping, **done}


def _quip(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    cfg = plan.stage.quip
    return _each(weights, statistics, plan, lambda W, H: quip.quantize(W, H, cfg, plan.grid, plan.seed))


def _pb_llm(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    cfg, size = plan.stage.pb_llm, plan.stage.group_size
    return _each(weights, statistics, plan, lambda W, H: pb_llm.quantize(W, H, cfg, plan.bits, size))


def _billm(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    cfg, size = plan.stage.billm, plan.stage.group_size
    return _each(weights, statistics, plan, lambda W, H: billm.quantize(W, H, cfg, size))


def _slim_llm(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    cfg, damping = plan.stage.slim_llm, plan.stage.gptq.damping
    return _each(weights, statistics, plan, lambda W, H: slim_llm.quantize(W, H, cfg, plan.grid, damping))


def _hqq(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    return _stacked(weights, lambda W: hqq.quantize(W, plan.stage.hqq, plan.grid)), {}


def _nf4(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    return [nf4.quantize(W, plan.stage.nf4) for W in weights], {}


def _ir_qlora(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    return [ir_qlora.quantize(W, plan.stage.ir_qlora, plan.stage.nf4) for W in weights], {}


def _int8(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    return _stacked(weights, int8.quantize), {}


def _smoothquant(weights: list[Tensor], statistics: Statistics | None, plan: Plan) -> Quantized:
    grid = Grid(int(plan.bits), "channel", symmetric=True)
    return _stacked(weights, lambda W: rtn.quantize(W, grid)), {}


def _smooth(block: nn.Module, batches: list[Batch], seen: dict[str, Statistics], plan: Plan) -> None:
    smoothquant.smooth(block, seen, plan.stage.smoothquant)


def _fold_and_clip(block: nn.Module, batches: list[Batch], seen: dict[str, Statistics], plan: Plan) -> None:
    grids = {name: plan.of(name).grid for name in models.linears(block)}
    awq.fold_and_clip(block, batches, seen, plan.stage.awq, grids)


def _token_by_token(plan: Plan) -> Activations:
    return Activations(plan.stage.smoothquant.activation_bits or int(plan.bits))


def _but_for_outliers(plan: Plan) -> Activations:
    return Activations(int8.BITS, plan.stage.int8.threshold)


def _stacked(weights: list[Tensor], quantize: Callable[[Tensor], AffineWeight]) -> list[Weight]:
    """Quantize matrices as one, which is faster, where rows do not interact."""
    rows = [len(weight) for weight in weights]
    return [*quantize(torch.cat(weights)).split(rows)]


def _each(
    weights: list[Tensor],
    statistics: Statistics | None,
    plan: Plan,
    quantize: Callable[[Tensor, Tensor], tuple[Weight, dict[str, float]]],
) -> Quantized:
    """Quantize matrices one by one; what is recorded is the mean over them."""

    def all_of_them(H: Tensor) -> tuple[list[Weight], dict[str, float]]:
        quantized, records = zip(*(quantize(W, H) for W in weights), strict=True)
        return [*quantized], {name: sum(r[name] for r in records) / len(records) for name in records[0]}

    (quantized, record), done = factored(all_of_them, _hessian(statistics), plan.stage.on_singular)
    return quantized, record | done


def _hessian(statistics: Statistics | None) -> Tensor:
    assert statistics is not None
    return statistics.hessian


METHODS: dict[str, Method] = {
    "rtn": Method(_rtn),
    "gptq": Method(_gptq, calibrated=True),
    "awq": Method(_rtn, calibrated=True, prepare=_fold_and_clip),
    "smoothquant": Method(_smoothquant, calibrated=True, prepare=_smooth, activations=_token_by_token),
    "quip": Method(_quip, calibrated=True),
    "pb-llm": Method(_pb_llm, calibrated=True),
    "billm": Method(_billm, calibrated=True),
    "slim-llm": Method(_slim_llm, calibrated=True),
    "hqq": Method(_hqq),
    "nf4": Method(_nf4),
    "qlora": Method(_nf4),
    "ir-qlora": Method(_ir_qlora),
    "int8": Method(_int8, activations=_but_for_outliers),
}
