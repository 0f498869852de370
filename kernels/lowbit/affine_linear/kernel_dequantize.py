"""W in a float dtype from packed storage, for a product by a dense matmul."""

# mypy: ignore-errors
# The language of Triton: no annotations but constants, and little of the syntax of Python.

from __future__ import annotations

import triton
import triton.language as tl

from lowbit.affine_linear.kernel_tiles import CODEBOOK, code_pairs, grid_of, load_planes, values


@triton.jit
def dequantize(
    words,
    scale,
    zero_point,
    table,
    weight,
    FIRST_ROW,
    ROWS,
    N,
    K,
    GROUPS,
    GROUP_SIZE: tl.constexpr,
    BITS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    GRID: tl.constexpr,
    PART: tl.constexpr,
    SHARED: tl.constexpr,
    PERIOD: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One period of BLOCK_N rows of W, into weight [ROWS, K], whose first row is row FIRST_ROW of W.

    SHARED: the PART columns of a part lie in one group; else each column looks up its own.
    PERIOD: 128, or 32 for what is left of the rows behind the last whole 128.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = FIRST_ROW + tl.minimum(n, ROWS - 1)[:, None]
    k0 = tl.program_id(1) * PERIOD
    if PERIOD == 32:
        k0 += (K + 31) // 128 * 128
    at = words + row * ((K + 31) // 32 * BITS) + k0 // 32 * BITS
    w0, w1, w2 = load_planes(at, P0, P1, P2, PERIOD)
    UNIT: tl.constexpr = 0.5 if BITS == 1 else 1 << BITS
    for part in tl.static_range(PERIOD // PART):
        pairs = code_pairs(w0, w1, w2, part, PART, P0, P1, P2, PERIOD)
        v = values(pairs, table, BITS, GRID, tl.float32)
        k = k0 + part * PART + tl.arange(0, PART)[None, :]
        g = (k0 + part * PART) // GROUP_SIZE if SHARED else tl.minimum(k, K - 1) // GROUP_SIZE
        s, rest = grid_of(scale, zero_point, row, g, N, GROUPS, BITS, P0, P1, P2, GRID)
        w = s * v if GRID == CODEBOOK else s * (UNIT * v - rest)
        out = weight + n.to(tl.int64)[:, None] * K + k
        tl.store(out, w.to(weight.dtype.element_ty), mask=(n < ROWS)[:, None] & (k < K))
