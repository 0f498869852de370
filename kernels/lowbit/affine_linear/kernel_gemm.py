"""y = x W^T on tensor cores, with W as the left operand: y^T = W x^T, so that values stay in registers.

In a part of a period, all of whose columns k share a group, a row n of W gives (kernel_tiles.py has v, c, r)

    y[m, n] += s UNIT sum_k x[m, k] (v[n, k] - c) - s r sum_k x[m, k]

so that scale and zero point cost nothing per weight; the last term is there if zero points are stored.
The columns can be split over programs: each leaves its sum in float32, and `reduce` adds them in
their order, so that runs agree bit for bit.
"""

# mypy: ignore-errors
# ruff: noqa: RUF005, SIM109
# The language of Triton: no annotations but constants, and little of the syntax of Python.

from __future__ import annotations

import triton
import triton.language as tl

from lowbit.affine_linear.kernel_tiles import FRACTIONS, PACKED, code_pairs, grid_of, load_planes, values


@triton.jit
def gemm(
    x,
    words,
    scale,
    zero_point,
    table,
    y,
    M,
    N,
    K,
    GROUPS,
    PERIODS_PER_SPLIT,
    GROUP_SIZE: tl.constexpr,
    BITS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    GRID: tl.constexpr,
    UNIT: tl.constexpr,
    DTYPE: tl.constexpr,
    PART: tl.constexpr,
    CHANNEL: tl.constexpr,
    TAIL: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One tile [BLOCK_N, BLOCK_M] of y^T, of one split of the columns; y is [splits, M, N]."""
    split = tl.program_id(2)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.minimum(n, N - 1)[:, None]
    row_words = (K + 31) // 32 * BITS
    columns = x + tl.minimum(m, M - 1).to(tl.int64)[None, :] * K
    whole = (K + 31) // 128  # periods of 128; K filled up to a multiple of 32
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)

    first = split * PERIODS_PER_SPLIT
    last = tl.minimum(first + PERIODS_PER_SPLIT, whole)
    grids = _grids(
        scale, zero_point, row, first, N, GROUPS, GROUP_SIZE, BITS, P0, P1, P2, GRID, PART, CHANNEL
    )
    for t in tl.range(first, last, num_stages=STAGES):
        w0, w1, w2 = load_planes(words + row * row_words + t * (4 * BITS), P0, P1, P2, 128)
        # the grids of the next period are on their way while this one is multiplied
        ahead = grids
        if not CHANNEL:
            ahead = _grids(
                scale, zero_point, row, tl.minimum(t + 1, last - 1), N, GROUPS, GROUP_SIZE,
                BITS, P0, P1, P2, GRID, PART, CHANNEL,
            )  # fmt: skip
        for part in tl.static_range(128 // PART):
            v = values(code_pairs(w0, w1, w2, part, PART, P0, P1, P2, 128), table, BITS, GRID, DTYPE)
            grid = grids[0] if CHANNEL else grids[part]
            k = t * 128 + part * PART
            acc = _add(acc, v, columns, k, K, grid, GRID, UNIT, PART, CHANNEL, EVEN_K)
        grids = ahead
    if TAIL and split == tl.num_programs(2) - 1:
        for t in tl.range(0, (K + 31) // 32 - whole * 4):
            k = whole * 128 + t * 32
            w0, w1, w2 = load_planes(words + row * row_words + k // 32 * BITS, P0, P1, P2, 32)
            v = values(code_pairs(w0, w1, w2, 0, 32, P0, P1, P2, 32), table, BITS, GRID, DTYPE)
            g = 0 if CHANNEL else k // GROUP_SIZE
            grid = grid_of(scale, zero_point, row, g, N, GROUPS, BITS, P0, P1, P2, GRID)
            acc = _add(acc, v, columns, k, K, grid, GRID, UNIT, 32, CHANNEL, EVEN_K)
    if CHANNEL:
        s, _ = grid_of(scale, zero_point, row, 0, N, GROUPS, BITS, P0, P1, P2, GRID)
        acc = acc * s
    out = y + split.to(tl.int64) * M * N + m.to(tl.int64)[None, :] * N + n[:, None]
    tl.store(out, acc.to(y.dtype.element_ty), mask=(n < N)[:, None] & (m < M)[None, :])


@triton.jit
def _grids(
    scale,
    zero_point,
    row,
    t,
    N,
    GROUPS,
    GROUP_SIZE: tl.constexpr,
    BITS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    GRID: tl.constexpr,
    PART: tl.constexpr,
    CHANNEL: tl.constexpr,
):
    """Grids of the parts of period t; the one of the row, if a row has one."""
    grids = (
        grid_of(
            scale, zero_point, row, 0 if CHANNEL else t * 128 // GROUP_SIZE, N, GROUPS, BITS, P0, P1, P2, GRID
        ),
    )
    if not CHANNEL:
        for part in tl.static_range(1, 128 // PART):
            g = (t * 128 + part * PART) // GROUP_SIZE
            grids = grids + (grid_of(scale, zero_point, row, g, N, GROUPS, BITS, P0, P1, P2, GRID),)
    return grids


@triton.jit
def _add(
    acc,
    v,
    columns,
    first,
    K,
    grid,
    GRID: tl.constexpr,
    UNIT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNEL: tl.constexpr,
    EVEN_K: tl.constexpr,
):
    """Add the product of WIDTH columns of one group; with one group a row, less its scale."""
    s, rest = grid
    k = first + tl.arange(0, WIDTH)[:, None]
    if EVEN_K:
        xt = tl.load(columns + k, eviction_policy="evict_last").to(v.dtype)
    else:
        xt = tl.load(columns + k, mask=k < K, other=0.0, eviction_policy="evict_last").to(v.dtype)
    product = tl.dot(v, xt, input_precision="ieee") * UNIT
    if GRID == PACKED or GRID == FRACTIONS:
        if v.shape[0] >= 64 and xt.shape[1] <= 32 and WIDTH < 128:
            # the sums where the product is, from tensor cores that wait for memory anyway; whole periods
            # would spill registers on sm_100
            sums = tl.dot(tl.full(v.shape, 1.0, v.dtype), xt, input_precision="ieee")
        else:
            sums = tl.sum(xt.to(tl.float32), 0)[None, :]
        product -= rest * sums
    return acc + (product if CHANNEL else s * product)


@triton.jit
def reduce(partial, y, SIZE, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Add SPLITS partial sums of SIZE numbers each, in their order."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        acc += tl.load(partial + split * SIZE + i, mask=i < SIZE, other=0.0)
    tl.store(y + i, acc.to(y.dtype.element_ty), mask=i < SIZE)
