"""Rounding gives the nearest level, whatever the group."""

from __future__ import annotations

import pytest
import torch

from workbench.quantization.grid import Grid
from workbench.quantization.methods import rtn


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [8, 24, "channel"])
def test_every_weight_goes_to_the_nearest_level_of_its_group(
    bits: int, symmetric: bool, group_size: int
) -> None:
    weight = torch.randn(5, 48)
    quantized = rtn.quantize(weight, Grid(bits, group_size, symmetric))
    assert quantized.symmetric == symmetric and quantized.g_idx is None
    width = 48 if group_size == "channel" else group_size
    assert quantized.group_size == width
    zero_point = quantized.zero_point
    if zero_point is None:
        zero_point = torch.full((5, 48 // width), 2.0 ** (bits - 1) if bits > 1 else 0.5)
    scale = quantized.scale.float().repeat_interleave(width, 1)[..., None]
    levels = scale * (torch.arange(2.0**bits) - zero_point.repeat_interleave(width, 1)[..., None])
    nearest = (levels - weight[..., None]).abs().amin(-1)
    torch.testing.assert_close((quantized.dequantize() - weight).abs(), nearest, rtol=1e-5, atol=1e-6)


def test_sixteen_bit_weights_are_rounded_in_float32() -> None:
    weight = torch.randn(8, 64).bfloat16()
    grid = Grid(4, 32, symmetric=True)
    assert torch.equal(rtn.quantize(weight, grid).codes, rtn.quantize(weight.float(), grid).codes)
