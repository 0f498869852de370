"""The reference is the formula of README.md, weight by weight."""

from __future__ import annotations

import pytest
import torch
from lowbit.affine_linear import dequantize, dequantize_packed, implied_zero_point, pack
from lowbit.affine_linear.reference import affine_linear
from torch import Tensor

OUT, IN, GROUPS = 6, 20, 4


def parts(bits: int, symmetric: bool, scattered: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    codes = torch.randint(2**bits, (OUT, IN), dtype=torch.uint8)
    zero_point = None if symmetric else torch.randint(2**bits, (OUT, GROUPS), dtype=torch.uint8)
    g_idx = torch.randperm(IN).remainder(GROUPS).to(torch.int16) if scattered else None
    return codes, torch.rand(OUT, GROUPS).half(), zero_point, g_idx


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scattered", [True, False])
def test_product_with_the_weights_of_the_formula(bits: int, symmetric: bool, scattered: bool) -> None:
    codes, scale, zero_point, g_idx = parts(bits, symmetric, scattered)
    weight = torch.empty(OUT, IN)
    for n in range(OUT):
        for k in range(IN):
            g = int(g_idx[k]) if g_idx is not None else k // (IN // GROUPS)
            z = float(zero_point[n, g]) if zero_point is not None else implied_zero_point(bits)
            weight[n, k] = float(scale[n, g]) * (int(codes[n, k]) - z)
    assert torch.equal(dequantize(codes, scale, zero_point, g_idx, bits), weight)

    packed_zero = None if zero_point is None else pack(zero_point.T, bits)
    packed = (pack(codes, bits), scale, packed_zero, g_idx, bits)
    assert torch.equal(dequantize_packed(*packed, IN), weight)

    x = torch.randn(2, 3, IN)
    assert torch.equal(affine_linear(x, *packed), x @ weight.T)
    assert affine_linear(x.bfloat16(), *packed).dtype == torch.bfloat16


def test_implied_zero_point_is_the_middle_code() -> None:
    assert [implied_zero_point(bits) for bits in (8, 4, 2)] == [128, 8, 2]
    assert implied_zero_point(1) == 0.5  # levels -s/2 and +s/2
