"""What the kernels promise of a codebook; `test_kernel.py` runs this file as its neighbour's does."""

from __future__ import annotations

import pytest
import torch
from lowbit.affine_linear import pack
from lowbit.affine_linear.kernel import dequantize, gradient, product
from lowbit.affine_linear.packed import INTERPRETED, Packed
from lowbit.codebook_linear import dequantize_packed
from lowbit.codebook_linear.kernel import backward, forward
from lowbit.regimes import Regime
from torch import Tensor

DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}  # levels are rounded too
REGIMES = {
    "gemv": Regime("gemv", block_n=32),
    "gemm": Regime("gemm", block_n=32, block_m=16, splits=2),
    "dequantize": Regime("dequantize"),
}


def weights(shape: tuple[int, int], block: int) -> tuple[Packed, Tensor]:
    """Random codes into a table without symmetry, and W in float64."""
    n, k = shape
    generator = torch.Generator().manual_seed(k)
    codes = pack(torch.randint(16, (n, k), generator=generator), 4).to(DEVICE)
    scale = (torch.rand(n, k // block, generator=generator) + 0.5).to(DEVICE)
    table = torch.randn(16, generator=generator).to(DEVICE)
    return Packed(codes, scale, None, table, 4, k), dequantize_packed(codes, scale, table, k).double()


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", REGIMES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "block"), [((33, 160), 32), ((24, 256), 64), ((24, 43), 43)])
def test_product_and_gradient(name: str, dtype: torch.dtype, shape: tuple[int, int], block: int) -> None:
    packed, dense = weights(shape, block)
    x = torch.randn(3, shape[1], generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    y = product(x, packed, REGIMES[name])
    assert y.dtype == dtype and error(y, x.double() @ dense.T) < TOLERANCE[dtype]
    for fused in (True, False):
        dx = gradient(y, packed, fused=fused)
        assert error(dx, y.double() @ dense) < TOLERANCE[dtype]


def test_entry_points() -> None:
    packed, dense = weights((33, 160), 32)
    assert packed.table is not None
    x = torch.randn(2, 160).to(DEVICE)
    y = forward(x, packed.codes, packed.scale, packed.table)
    assert error(y, x.double() @ dense.T) < TOLERANCE[torch.float32]
    dx = backward(y, packed.codes, packed.scale, packed.table, 160)
    assert error(dx, y.double() @ dense) < TOLERANCE[torch.float32]
    assert error(dequantize(packed, slice(None), torch.float32), dense) < 1e-6


def test_another_table_is_refused() -> None:
    packed, _ = weights((33, 160), 32)
    with pytest.raises(ValueError, match=r"table has shape \[8\]; a contiguous \[16\]"):
        forward(torch.randn(2, 160).to(DEVICE), packed.codes, packed.scale, torch.randn(8).to(DEVICE))
