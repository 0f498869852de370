"""What the kernels promise; `test_kernel.py` runs this file under the interpreter, or on a GPU.

Not collected by itself: TRITON_INTERPRET must be set before triton is imported anywhere in a process.
"""

from __future__ import annotations

import pytest
import torch
from lowbit.affine_linear import dequantize_packed, pack
from lowbit.affine_linear.kernel import backward, dequantize, forward, gradient, product
from lowbit.affine_linear.packed import INTERPRETED, Packed
from lowbit.regimes import Regime
from torch import Tensor

DEVICE = "cpu" if INTERPRETED else "cuda"
# a product of 16-bit numbers summed in float32 and rounded once; float32 sums a few hundred terms. Levels are
# exact in each, so what remains is the rounding of y, and for bfloat16 of d in the gradient.
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
GEMV, GEMM = Regime("gemv", block_n=32), Regime("gemm", block_n=32, block_m=16)
REGIMES = {
    "gemv": GEMV,
    "gemv-two-periods": Regime("gemv", block_n=32, periods=2),
    "gemv-split": Regime("gemv", block_n=32, splits=2),
    "gemm": GEMM,
    "gemm-split": Regime("gemm", block_n=32, block_m=16, splits=3),
    "dequantize": Regime("dequantize"),
}


def weights(bits: int, shape: tuple[int, int], group: int, zero: str) -> Packed:
    """Random weights; the first row has all bits set, so that words are negative."""
    (n, k), groups = shape, shape[1] // group
    generator = torch.Generator().manual_seed(bits * 1000 + k + group)
    codes = torch.randint(2**bits, (n, k), generator=generator, dtype=torch.uint8)
    codes[0] = 2**bits - 1
    codes[1, : min(k, 2**bits)] = torch.arange(2**bits)[:k].to(torch.uint8)  # every value
    scale = (torch.rand(n, groups, generator=generator) + 0.5).half().to(DEVICE)
    points = {
        "symmetric": None,
        "packed": pack(torch.randint(2**bits, (groups, n), generator=generator), bits),
        "fractions": (torch.rand(n, groups, generator=generator) * 2**bits).half(),
    }[zero]
    points = None if points is None else points.to(DEVICE)
    return Packed(pack(codes, bits).to(DEVICE), scale, points, None, bits, k)


def dense(packed: Packed) -> Tensor:
    """W [N, K], float64, by the reference."""
    n = packed.shape[0]
    point = packed.zero_point
    if point is None or point.dtype == torch.int32:
        parts = packed.codes, packed.scale, point, None, packed.bits, packed.in_features
        return dequantize_packed(*parts).double()
    middle = 2.0 ** (packed.bits - 1) if packed.bits > 1 else 0.5
    symmetric = dequantize_packed(packed.codes, packed.scale, None, None, packed.bits, packed.in_features)
    shift = packed.scale.double() * (point.double() - middle)
    return symmetric.double() - shift.repeat_interleave(packed.in_features // shift.shape[1], 1).view(n, -1)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def activations(m: int, k: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(m, k, generator=torch.Generator().manual_seed(m + k)).to(DEVICE, dtype)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("zero", ["symmetric", "packed", "fractions"])
@pytest.mark.parametrize("name", ["gemv", "gemm"])
def test_every_width_and_grid(bits: int, zero: str, name: str) -> None:
    """128 + 32 columns: a period of either size; 33 rows: the last tile is not full."""
    packed, x = weights(bits, (33, 160), 32, zero), activations(2, 160, torch.float32)
    assert error(product(x, packed, REGIMES[name]), x.double() @ dense(packed).T) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", REGIMES)
def test_every_regime_in_half_precision(bits: int, dtype: torch.dtype, name: str) -> None:
    packed, x = weights(bits, (24, 384), 128, "packed"), activations(2, 384, dtype)
    y = product(x, packed, REGIMES[name])
    assert y.dtype == dtype and error(y, x.double() @ dense(packed).T) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("shape", "group"), [((24, 256), 64), ((24, 300), 300), ((40, 43), 43), ((24, 192), 96), ((24, 80), 16)]
)
@pytest.mark.parametrize("name", ["gemv", "gemm-split", "dequantize"])
@pytest.mark.parametrize("m", [1, 5])
def test_odd_shapes_and_groups(shape: tuple[int, int], group: int, name: str, m: int) -> None:
    packed, x = weights(3, shape, group, "packed"), activations(m, shape[1], torch.float32)
    assert error(product(x, packed, REGIMES[name]), x.double() @ dense(packed).T) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", ["gemv", "gemm"])
def test_a_large_mean_and_an_outlier_do_not_hurt(name: str) -> None:
    packed, x = weights(4, (32, 256), 128, "packed"), activations(2, 256, torch.float32)
    x = x + 10
    x[0, 7] = 1000 * x.std()
    # terms cancel to about the largest code times the mean of x, over the deviation: one digit
    assert error(product(x, packed, REGIMES[name]), x.double() @ dense(packed).T) < 5e-5


@pytest.mark.parametrize("name", ["gemv-split", "gemm-split"])
def test_runs_agree_bit_for_bit(name: str) -> None:
    packed, x = weights(5, (40, 512), 128, "symmetric"), activations(2, 512, torch.float16)
    first = product(x, packed, REGIMES[name])
    assert torch.equal(first, product(x, packed, REGIMES[name]))


def test_what_is_not_asked_for_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs begin as NaN and are written everywhere."""
    empty = torch.empty
    poisoned = lambda *shape, **options: empty(*shape, **options).fill_(float("nan"))  # noqa: E731
    monkeypatch.setattr(torch, "empty", poisoned)
    packed, x = weights(4, (33, 160), 32, "packed"), activations(5, 160, torch.float32)
    results = [product(x, packed, regime) for regime in REGIMES.values()]
    results += [gradient(activations(5, 33, torch.float32), packed, fused=fused) for fused in (True, False)]
    assert all(bool(result.isfinite().all()) for result in results)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("zero", ["symmetric", "packed", "fractions"])
@pytest.mark.parametrize("fused", [True, False])
def test_gradient(bits: int, zero: str, fused: bool) -> None:
    packed, dy = weights(bits, (33, 160), 32, zero), activations(3, 33, torch.float32)
    dx = gradient(dy, packed, fused=fused)
    assert error(dx, dy.double() @ dense(packed)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("group", [128, 256])
def test_gradient_in_half_precision(dtype: torch.dtype, group: int) -> None:
    packed, dy = weights(4, (40, 256), group, "packed"), activations(2, 40, dtype)
    dx = gradient(dy, packed, fused=True)
    assert dx.dtype == dtype and error(dx, dy.double() @ dense(packed)) < TOLERANCE[dtype]


@pytest.mark.parametrize("group", [32, 40, 160])
def test_rows_of_the_weight(group: int) -> None:
    packed = weights(6, (33, 160), group, "packed")
    rows = dequantize(packed, slice(5, 30), torch.float32)
    assert error(rows, dense(packed)[5:30]) < 1e-6


def test_entry_points_choose_a_regime() -> None:
    packed = weights(4, (64, 128), 32, "packed")
    parts = packed.codes, packed.scale, packed.zero_point, 4
    for m in (0, 1, 17):
        x = activations(m, 128, torch.float32)
        y = forward(x, *parts)
        assert y.shape == (m, 64)
        torch.testing.assert_close(y.double(), x.double() @ dense(packed).T, rtol=1e-4, atol=1e-4)
    dy = activations(2, 64, torch.float32)
    assert error(backward(dy, *parts, 128), dy.double() @ dense(packed)) < TOLERANCE[torch.float32]


def test_wrong_input_is_named() -> None:
    packed = weights(4, (33, 160), 32, "packed")
    parts = packed.codes, packed.scale, packed.zero_point
    x = activations(2, 160, torch.float32)
    with pytest.raises(ValueError, match="1 to 8 bits"):
        forward(x, *parts, 9)
    with pytest.raises(ValueError, match=r"codes has shape \[33, 20\]; a contiguous \[33, 15\]"):
        forward(x, *parts, 3)
    with pytest.raises(ValueError, match=r"float64; torch\.float16"):
        forward(x.double(), *parts, 4)
    with pytest.raises(ValueError, match=r"a contiguous \[M, 160\]"):
        forward(x.T.contiguous().T, *parts, 4)
    with pytest.raises(ValueError, match="one device"):
        forward(x.to("meta"), *parts, 4)
