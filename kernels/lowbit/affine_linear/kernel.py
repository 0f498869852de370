"""The products by packed weights on a GPU: what to launch, and how.

The same functions run on CPU tensors when the environment variable TRITON_INTERPRET was 1 as triton was
imported. Weights are as in `packed`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lowbit import regimes
from lowbit.affine_linear import kernel_backward, kernel_dequantize, kernel_gemm, kernel_gemv
from lowbit.affine_linear.packed import INTERPRETED, Packed, exact
from lowbit.regimes import Regime

DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
SCRATCH = 32 * 2**20  # bytes of dense weight at a time: it stays in the second-level cache
BACKWARD = {"BLOCK_M": 32, "BLOCK_N": 32, "STAGES": 3, "num_warps": 4}
DEQUANTIZE = {"BLOCK_N": 32, "num_warps": 4}
FUSED_BACKWARD_ROWS = 64  # above, a dense matmul by dequantized weights is faster


def forward(x: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """Compute y = x W^T.

    Args:
        x: [M, K], float16, bfloat16 or float32, contiguous.
        codes: [N, bits * ceil(K / 32)], int32.
        scale: [N, groups], float.
        zero_point: [groups, bits * ceil(N / 32)], int32; [N, groups], float; or None: symmetric.
        bits: width of a code, 1 to 8.

    Returns:
        y [M, N], dtype of x.

    Raises:
        ValueError: tensors that are not such, or on several devices.
    """
    return product(x, Packed(codes, scale, zero_point, None, bits, x.shape[1]))


def backward(
    dy: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int, in_features: int
) -> Tensor:
    """Compute dx = dy W.

    Args:
        dy: [M, N], float16, bfloat16 or float32, contiguous.
        codes: as in `forward`, like scale, zero_point and bits.
        scale: [N, groups].
        zero_point: packed, fractions, or None.
        bits: width of a code.
        in_features: K.

    Returns:
        dx [M, K], dtype of dy.

    Raises:
        ValueError: tensors that are not such, or on several devices.
    """
    return gradient(dy, Packed(codes, scale, zero_point, None, bits, in_features))


def product(x: Tensor, packed: Packed, regime: Regime | None = None) -> Tensor:
    """Compute y [M, N] = x [M, K] W^T, in the regime of the table, or in this one."""
    _check_dense("x", x, packed.in_features, packed)
    (n, _), m = packed.shape, x.shape[0]
    if m == 0:
        return x.new_empty(0, n)
    packed = packed.for_dtype(x.dtype)
    if regime is None:
        regime = regimes.choose(packed.bits, packed.shape, m, x.device)
    if regime.kernel == "dequantize" or packed.part is None:
        return _by_dense(x, packed, transposed=False)
    y = torch.empty(m, n, dtype=exact(x.dtype) if regime.splits == 1 else torch.float32, device=x.device)
    if regime.splits == 1:
        launch(x, packed, regime, y)
        return y.to(x.dtype)
    partial = torch.empty(regime.splits, m, n, dtype=torch.float32, device=x.device)
    launch(x, packed, regime, partial)
    y = torch.empty(m, n, dtype=exact(x.dtype), device=x.device)
    kernel_gemm.reduce[(triton.cdiv(m * n, 1024),)](partial, y, m * n, SPLITS=regime.splits, BLOCK=1024)
    return y.to(x.dtype)


def launch(x: Tensor, packed: Packed, regime: Regime, y: Tensor) -> None:
    """Run gemv or gemm into y [splits, M, N] or [M, N]."""
    (n, k), m, part = packed.shape, x.shape[0], packed.part
    whole = -(-k // 32) // 4
    arguments = (x, *packed.pointers(), y, m, n, k, packed.scale.shape[1])
    constants: dict[str, object] = {**packed.constants(), "PART": part}
    constants |= {"TAIL": whole * 128 < k, "EVEN_K": k % 32 == 0}
    constants |= {"BLOCK_N": regime.block_n, "STAGES": regime.stages}
    tiles_n = triton.cdiv(n, regime.block_n)
    if regime.kernel == "gemv":
        steps = triton.cdiv(triton.cdiv(whole, regime.periods), regime.splits) * regime.periods
        kernel_gemv.gemv[(m, tiles_n, regime.splits)](
            *arguments, steps, **constants, PERIODS=regime.periods, num_warps=regime.warps
        )
        return
    constants |= values_of(packed, x.dtype) | {"CHANNEL": packed.scale.shape[1] == 1}
    kernel_gemm.gemm[(triton.cdiv(m, regime.block_m), tiles_n, regime.splits)](
        *arguments,
        triton.cdiv(whole, regime.splits),
        **constants,
        BLOCK_M=regime.block_m,
        num_warps=regime.warps,
    )


def gradient(dy: Tensor, packed: Packed, *, fused: bool | None = None) -> Tensor:
    """Compute dx [M, K] = dy [M, N] W, from packed words where `fused`, by default for few rows."""
    _check_dense("dy", dy, packed.shape[0], packed)
    (n, k), m, part = packed.shape, dy.shape[0], packed.part
    if part is None or not (m <= FUSED_BACKWARD_ROWS if fused is None else fused):
        return _by_dense(dy, packed, transposed=True)
    packed = packed.for_dtype(dy.dtype)
    dx = torch.empty(m, k, dtype=exact(dy.dtype), device=dy.device)
    constants = packed.constants() | values_of(packed, dy.dtype) | BACKWARD
    arguments = (dy, *packed.pointers(), dx, m, n, k, packed.scale.shape[1])
    for period, periods in _periods(k):
        width = min(part, period)
        grid = (triton.cdiv(m, BACKWARD["BLOCK_M"]), periods, period // width)
        kernel_backward.backward[grid](*arguments, **constants, PART=width, PERIOD=period)
    return dx.to(dy.dtype)


def dequantize(packed: Packed, rows: slice, dtype: torch.dtype) -> Tensor:
    """Rows of W, [rows, K], of this dtype."""
    (n, k), part = packed.shape, packed.part
    first, last, _ = rows.indices(n)
    weight = torch.empty(last - first, k, dtype=exact(dtype), device=packed.codes.device)
    arguments = (*packed.pointers(), weight, first, last - first, n, k, packed.scale.shape[1])
    for period, periods in _periods(k):
        kernel_dequantize.dequantize[(triton.cdiv(last - first, 32), periods)](
            *arguments,
            **packed.constants(),
            PART=min(part or 32, period),
            SHARED=part is not None,
            PERIOD=period,
            **DEQUANTIZE,
        )
    return weight.to(dtype)


def values_of(packed: Packed, dtype: torch.dtype) -> dict[str, object]:
    """How tensor cores see a code: the dtype of v, and its UNIT (kernel_tiles.py)."""
    dtype = exact(dtype)
    plain = packed.table is not None or (dtype == torch.bfloat16 and packed.bits == 8)
    return {"UNIT": 1.0 if plain else unit(packed.bits), "DTYPE": DTYPES[dtype]}


def unit(bits: int) -> float:
    """What a value at the top of the mantissa lacks of a code."""
    return 2.0**bits if bits > 1 else 0.5


def _by_dense(x: Tensor, packed: Packed, *, transposed: bool) -> Tensor:
    """The product by dequantized weights, some rows of W at a time."""
    (n, k), m = packed.shape, x.shape[0]
    step = max(1, SCRATCH // (k * x.element_size()))
    if transposed:
        dx = x.new_zeros(m, k, dtype=torch.float32)
        for start in range(0, n, step):
            weight = dequantize(packed, slice(start, start + step), x.dtype)
            dx += x[:, start : start + step] @ weight
        return dx.to(x.dtype)
    y = x.new_empty(m, n)
    for start in range(0, n, step):
        y[:, start : start + step] = x @ dequantize(packed, slice(start, start + step), x.dtype).T
    return y


def _periods(in_features: int) -> list[tuple[int, int]]:
    """Sizes of the periods of a row, and how many there are of each."""
    words = -(-in_features // 32)
    return [(size, count) for size, count in ((128, words // 4), (32, words % 4)) if count]


def _check_dense(name: str, dense: Tensor, columns: int, packed: Packed) -> None:
    if dense.dtype not in DTYPES:
        supported = ", ".join(map(str, DTYPES))
        raise ValueError(f"{name} has dtype {dense.dtype}; {supported} are supported")
    if dense.ndim != 2 or dense.shape[1] != columns or not dense.is_contiguous():
        raise ValueError(f"{name} has shape {list(dense.shape)}; a contiguous [M, {columns}] is supported")
    devices = {tensor.device for tensor in (dense, *packed.pointers())}
    if len(devices) > 1:
        raise ValueError(f"tensors on {', '.join(sorted(map(str, devices)))}; one device is supported")
    if not (dense.is_cuda or INTERPRETED):
        raise ValueError(f"{name} is on {dense.device}; the kernels run on cuda")
