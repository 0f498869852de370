"""y = W x for one row of x at a time, without tensor cores: lanes stand along the words of a row of W.

A program has BLOCK_N rows and walks over their columns, PERIODS periods of 128 at a time. A slot of a word of
the first plane is two neighbouring columns; the other planes are read at the same columns. The codes go
to float32 by the top of the mantissa, and what the scale multiplies is a sum over the slots of one group.
"""

# mypy: ignore-errors
# ruff: noqa: SIM109
# The language of Triton: no annotations but constants, and little of the syntax of Python.

from __future__ import annotations

import triton
import triton.language as tl

from lowbit.affine_linear.kernel_tiles import (
    CODEBOOK,
    FRACTIONS,
    PACKED,
    SYMMETRIC,
    code_pairs,
    grid_of,
    load_planes,
    values,
    wide_values,
)


@triton.jit
def gemv(
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
    PART: tl.constexpr,
    TAIL: tl.constexpr,
    EVEN_K: tl.constexpr,
    PERIODS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK_N numbers of y, [splits, M, N], of one row of x and one split of the columns."""
    m = tl.program_id(0)
    split = tl.program_id(2)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, N - 1)[:, None]
    row_words = words + row * ((K + 31) // 32 * BITS)
    x_row = x + m.to(tl.int64) * K
    whole = (K + 31) // 128

    S0: tl.constexpr = 4 * P0
    UNIT: tl.constexpr = 0.5 if BITS == 1 else 1 << BITS
    column = tl.arange(0, PERIODS * S0)
    acc = tl.zeros([BLOCK_N, PERIODS * S0], tl.float32)
    first = split * PERIODS_PER_SPLIT
    last = tl.minimum(first + PERIODS_PER_SPLIT, whole)
    for start in tl.range(first, last, PERIODS, num_stages=STAGES):
        t = start + column // S0
        inside = t < last
        acc += _periods(
            x_row, row_words, scale, zero_point, table, row, t, column % S0, inside, N, K, GROUPS, GROUP_SIZE,
            BITS, P0, P1, P2, GRID, PART, EVEN_K, PERIODS, BLOCK_N,
        )  # fmt: skip
    sums = tl.sum(acc, 1)
    if TAIL and split == tl.num_programs(2) - 1:
        for r in tl.range(0, (K + 31) // 32 - whole * 4):
            k0 = whole * 128 + r * 32
            w0, w1, w2 = load_planes(row_words + k0 // 32 * BITS, P0, P1, P2, 32)
            v = values(code_pairs(w0, w1, w2, 0, 32, P0, P1, P2, 32), table, BITS, GRID, tl.float32)
            k = k0 + tl.arange(0, 32)
            xs = tl.load(x_row + k, mask=k < K, other=0.0).to(tl.float32)
            s, rest = grid_of(scale, zero_point, row, k0 // GROUP_SIZE, N, GROUPS, BITS, P0, P1, P2, GRID)
            if GRID != CODEBOOK:
                v = UNIT * v - rest
            sums += tl.sum(s * v * xs[None, :], 1)
    out = y + (split.to(tl.int64) * M + m) * N + n
    tl.store(out, sums.to(y.dtype.element_ty), mask=n < N)


@triton.jit
def _periods(
    x_row,
    row_words,
    scale,
    zero_point,
    table,
    row,
    t,
    w,
    inside,
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
    EVEN_K: tl.constexpr,
    PERIODS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Products of some periods t with x, summed over the slots: one number a row and word."""
    S0: tl.constexpr = 4 * P0
    WORDS: tl.constexpr = PERIODS * S0
    at = row_words + t * (4 * BITS)
    masked = inside[None, :]
    w0 = tl.load(at + w, mask=masked, other=0, eviction_policy="evict_first")
    w1 = w0
    w2 = w0
    if P1:
        w1 = tl.load(at + 4 * P0 + w % (4 * P1), mask=masked, other=0, eviction_policy="evict_first")
    if P2:
        w2 = tl.load(at + 4 * (P0 + P1) + w % (4 * P2), mask=masked, other=0, eviction_policy="evict_first")
    acc = tl.zeros([BLOCK_N, WORDS], tl.float32)
    SLOTS: tl.constexpr = PART // (8 * P0)  # of one group
    UNIT: tl.constexpr = 0.5 if BITS == 1 else 1 << BITS
    for part in tl.static_range(128 // PART):
        products = tl.zeros([BLOCK_N, WORDS], tl.float32)
        total = tl.zeros([WORDS], tl.float32)
        for i in tl.static_range(part * SLOTS, (part + 1) * SLOTS):
            codes = (w0 >> (P0 * i)) & (((1 << P0) - 1) * 0x10001)
            if P1:
                shift = P1 * (P0 // P1 * i + w // (4 * P1))
                codes |= ((w1 >> shift[None, :]) & (((1 << P1) - 1) * 0x10001)) << P0
            if P2:
                shift = P2 * (P0 // P2 * i + w // (4 * P2))
                codes |= ((w2 >> shift[None, :]) & (((1 << P2) - 1) * 0x10001)) << (P0 + P1)
            k = (t * 128 + 8 * P0 * i + 2 * w)[:, None] + tl.arange(0, 2)[None, :]
            if EVEN_K:
                pairs = tl.load(x_row + k, mask=inside[:, None], other=0.0, eviction_policy="evict_last")
            else:
                pairs = tl.load(
                    x_row + k, mask=inside[:, None] & (k < K), other=0.0, eviction_policy="evict_last"
                )
            x0, x1 = tl.split(pairs.to(tl.float32))
            if GRID == CODEBOOK:
                v0 = tl.load(table + (codes & 0xFFFF), eviction_policy="evict_last").to(tl.float32)
                v1 = tl.load(table + (codes >> 16), eviction_policy="evict_last").to(tl.float32)
            else:
                v0 = wide_values(codes & 0xFFFF, BITS)
                v1 = wide_values(codes >> 16, BITS)
            if GRID == PACKED or GRID == FRACTIONS:
                total += x0 + x1
            products += v0 * x0[None, :] + v1 * x1[None, :]
        g = tl.where(inside, (t * 128 + part * PART) // GROUP_SIZE, 0)
        s, rest = grid_of(scale, zero_point, row, g[None, :], N, GROUPS, BITS, P0, P1, P2, GRID)
        if GRID == CODEBOOK:
            acc += s * products
        elif GRID == SYMMETRIC:
            acc += s * UNIT * products
        else:
            acc += s * (UNIT * products - rest * total[None, :])
    return acc
