"""The quantization methods, one a file, and the table from the name in a recipe to the function."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid
from workbench.quantization.methods import gptq, rtn
from workbench.recipe.schema import Quantize

Quantized = tuple[AffineWeight, dict[str, float]]


class Method(NamedTuple):
    """A method as the walk over the blocks sees it.

    Attributes:
        calibrated: whether it needs the Hessian of the inputs.
        quantize: from weight [out, in], Hessian [in, in] or None, the recipe's section and the grid to the
            quantized weight and what is worth recording. Rows may not interact.
    """

    calibrated: bool
    quantize: Callable[[Tensor, Tensor | None, Quantize, Grid], Quantized]


def _rtn(weight: Tensor, hessian: Tensor | None, stage: Quantize, grid: Grid) -> Quantized:
    return rtn.quantize(weight, grid), {}


def _gptq(weight: Tensor, hessian: Tensor | None, stage: Quantize, grid: Grid) -> Quantized:
    assert hessian is not None
    dead_columns = float((hessian.diagonal() == 0).sum())
    quantized = gptq.quantize(weight, hessian, stage.gptq, grid)
    return quantized, {"damping": stage.gptq.damping, "dead_columns": dead_columns}


METHODS: dict[str, Method] = {
    "rtn": Method(calibrated=False, quantize=_rtn),
    "gptq": Method(calibrated=True, quantize=_gptq),
}
