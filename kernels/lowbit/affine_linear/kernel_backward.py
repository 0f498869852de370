"""dx = dy W from the storage of the forward pass.

The sum runs over the rows n of W, along which scales differ, but in the columns of one group they
depend on n only, and multiply dy instead of W (kernel_tiles.py has v, c, r):

    dx[m, k] = sum_n d[m, n] (v[n, k] - c - r[n] / UNIT),    d = UNIT s[n] dy[m, n]

d is rounded to the dtype of the product once, and both terms use the rounded one.
"""

# mypy: ignore-errors
# ruff: noqa: SIM109
# The language of Triton: no annotations but constants, and little of the syntax of Python.

from __future__ import annotations

import triton
import triton.language as tl

from lowbit.affine_linear.kernel_tiles import FRACTIONS, PACKED, code_pairs, grid_of, load_planes, values


@triton.jit
def backward(
    dy,
    words,
    scale,
    zero_point,
    table,
    dx,
    M,
    N,
    K,
    GROUPS,
    GROUP_SIZE: tl.constexpr,
    BITS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    GRID: tl.constexpr,
    UNIT: tl.constexpr,
    DTYPE: tl.constexpr,
    PART: tl.constexpr,
    PERIOD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One part of a period, for BLOCK_M rows of dx [M, K].

    PERIOD: 128, or 32 for what is left of the rows behind the last whole 128.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    period = tl.program_id(1) * PERIOD
    if PERIOD == 32:
        period += (K + 31) // 128 * 128
    PARTS: tl.constexpr = PERIOD // PART
    for part in tl.static_range(PARTS):
        # a part is a branch, not an offset, because it says at which slots its codes lie
        if part == tl.program_id(2):
            _part(
                dy, words, scale, zero_point, table, dx, m, period, M, N, K, GROUPS, GROUP_SIZE,
                part, BITS, P0, P1, P2, GRID, UNIT, DTYPE, PART, PERIOD, BLOCK_M, BLOCK_N, STAGES,
            )  # fmt: skip


@triton.jit
def _part(
    dy,
    words,
    scale,
    zero_point,
    table,
    dx,
    m,
    period,
    M,
    N,
    K,
    GROUPS,
    GROUP_SIZE: tl.constexpr,
    part: tl.constexpr,
    BITS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    GRID: tl.constexpr,
    UNIT: tl.constexpr,
    DTYPE: tl.constexpr,
    PART: tl.constexpr,
    PERIOD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    """The columns of one group, summed over all rows of W."""
    row_words = (K + 31) // 32 * BITS
    k0 = period + part * PART
    rows = dy + tl.minimum(m, M - 1).to(tl.int64)[:, None] * N
    acc = tl.zeros([BLOCK_M, PART], tl.float32)
    shift = tl.zeros([BLOCK_M], tl.float32)
    for start in tl.range(0, N, BLOCK_N, num_stages=STAGES):
        n = start + tl.arange(0, BLOCK_N)
        row = tl.minimum(n, N - 1)
        w0, w1, w2 = load_planes(words + row[:, None] * row_words + period // 32 * BITS, P0, P1, P2, PERIOD)
        v = values(code_pairs(w0, w1, w2, part, PART, P0, P1, P2, PERIOD), table, BITS, GRID, DTYPE)
        s, rest = grid_of(scale, zero_point, row, k0 // GROUP_SIZE, N, GROUPS, BITS, P0, P1, P2, GRID)
        d = tl.load(rows + n[None, :], mask=(n < N)[None, :], other=0.0).to(tl.float32)
        d = (d * (s * UNIT)[None, :]).to(DTYPE)
        acc = tl.dot(d, v, acc, input_precision="ieee")
        if GRID == PACKED or GRID == FRACTIONS:
            shift += tl.sum(d.to(tl.float32) * (rest * (1.0 / UNIT))[None, :], 1)
    k = k0 + tl.arange(0, PART)
    out = dx + m.to(tl.int64)[:, None] * K + k[None, :]
    acc -= shift[:, None]
    tl.store(out, acc.to(dx.dtype.element_ty), mask=(m < M)[:, None] & (k < K)[None, :])
