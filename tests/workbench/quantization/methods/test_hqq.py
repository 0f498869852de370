"""HQQ moves zero points to where rounding loses less, group by group."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import NumericsError
from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid
from workbench.quantization.methods import hqq, rtn
from workbench.recipe.quantization import Hqq


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [32, "channel"])
def test_loses_less_than_rounding(bits: int, group_size: int) -> None:
    weight, grid = 0.02 * torch.randn(64, 96), Grid(bits, group_size, symmetric=False)
    found, rounded = hqq.quantize(weight, Hqq(), grid), rtn.quantize(weight, grid)
    assert (weight - found.dequantize()).norm() < 0.97 * (weight - rounded.dequantize()).norm()


def test_groups_do_not_interact() -> None:
    weight, grid = torch.randn(6, 64), Grid(3, 16, symmetric=False)
    whole = hqq.quantize(weight, Hqq(), grid).dequantize()
    parts = [hqq.quantize(part, Hqq(), grid).dequantize() for part in (weight[:2], weight[2:])]
    assert torch.equal(whole, torch.cat(parts))
    columns = [hqq.quantize(part, Hqq(), grid).dequantize() for part in weight.split(16, 1)]
    assert torch.equal(whole, torch.cat(columns, 1))


def test_weights_on_a_grid_stay() -> None:
    codes = torch.randint(16, (8, 32))
    codes[:, :2] = torch.tensor([0, 15])
    weight = 0.25 * (codes - 6.0)
    assert torch.equal(hqq.quantize(weight, Hqq(), Grid(4, 32, symmetric=False)).dequantize(), weight)


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_groups_of_one_value(value: float) -> None:
    weight = torch.full((2, 32), value)
    decoded = hqq.quantize(weight, Hqq(), Grid(2, 16, symmetric=False)).dequantize()
    torch.testing.assert_close(decoded, weight, rtol=2e-3, atol=0)


def test_fractional_zero_points_survive_the_disk() -> None:
    quantized = hqq.quantize(torch.randn(8, 48), Hqq(), Grid(3, 16, symmetric=False))
    assert quantized.zero_point is not None and (quantized.zero_point != quantized.zero_point.round()).any()
    tensors = quantized.tensors()
    assert quantized.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    again = AffineWeight.from_tensors(tensors, (8, 48), 3)
    assert torch.equal(again.dequantize(), quantized.dequantize())


def test_shrinkage_is_the_least_of_the_split_norm() -> None:
    """With p = 1 it is soft thresholding, the exact minimum of |E| + beta/2 (E - x)^2."""
    x = torch.linspace(-1, 1, 41)
    E = torch.linspace(-1, 1, 4001)
    loss = E.abs() + 5 / 2 * (E - x[:, None]).square()
    torch.testing.assert_close(hqq.shrink(x, 5.0, 1.0), E[loss.argmin(1)], rtol=0, atol=1e-3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_damaged_weight_is_refused(bad: float) -> None:
    weight = torch.randn(4, 32)
    weight[1, 2] = bad
    with pytest.raises(NumericsError, match="NaN"):
        hqq.quantize(weight, Hqq(), Grid(4, 16, symmetric=False))
