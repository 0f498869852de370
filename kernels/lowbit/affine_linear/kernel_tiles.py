"""Tiles of packed weights in registers: words become codes, codes become values of a float dtype.

Letters: N rows and K columns of W; a period has 128 codes, or 32 in what is left of a row behind the last
whole 128; P0, P1, P2 are the widths of the planes of a code, 0 for none (layout.py has the law).

Values. A code q of b bits is put at the top of the mantissa of 1.0, which costs no conversion:
v = 1 + q / UNIT with UNIT = 2^b. bfloat16 has no room for 8 bits there: it takes v = q with UNIT = 1, by
way of float32. One bit is the sign of 1, with UNIT = 1/2 and c = 0. A level of a codebook is a value as
it is.

Zero points. c is the middle of the grid as a value v: v - c = (q - middle) / UNIT is exact in every dtype,
and needs no zero point. What a stored zero point is off the middle is its rest, r = z - middle:

    W = s (UNIT (v - c) - r)
"""

# mypy: ignore-errors
# ruff: noqa: SIM108, SIM300
# The language of Triton: no annotations but constants, and little of the syntax of Python.

from __future__ import annotations

import triton
import triton.language as tl

SYMMETRIC = tl.constexpr(0)
PACKED = tl.constexpr(1)
FRACTIONS = tl.constexpr(2)
CODEBOOK = tl.constexpr(3)


@triton.jit
def load_planes(words, P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr, PERIOD: tl.constexpr):
    """The planes of one period of each row, [BLOCK_N, P * PERIOD / 32]; it begins at `words` [BLOCK_N, 1]."""
    S0: tl.constexpr = P0 * PERIOD // 32
    w0 = tl.load(words + tl.arange(0, S0)[None, :], eviction_policy="evict_first")
    w1 = w0
    w2 = w0
    if P1:
        S1: tl.constexpr = P1 * PERIOD // 32
        w1 = tl.load(words + S0 + tl.arange(0, S1)[None, :], eviction_policy="evict_first")
        if P2:
            S2: tl.constexpr = P2 * PERIOD // 32
            w2 = tl.load(words + S0 + S1 + tl.arange(0, S2)[None, :], eviction_policy="evict_first")
    return w0, w1, w2


@triton.jit
def _fields(words, PART: tl.constexpr, P: tl.constexpr, PERIOD: tl.constexpr, WIDTH: tl.constexpr):
    """Pairs of fields, [BLOCK_N, WIDTH / 2] int32: neighbouring codes at the foot of the two halves."""
    ROWS: tl.constexpr = words.shape[0]
    SLOTS: tl.constexpr = 16 * WIDTH // (P * PERIOD)  # slots that hold the codes of this part
    shifts = P * (PART * SLOTS + tl.arange(0, SLOTS))
    fields = (words[:, None, :] >> shifts[None, :, None]) & (((1 << P) - 1) * 0x10001)
    return tl.reshape(fields, [ROWS, WIDTH // 2])


@triton.jit
def code_pairs(
    w0,
    w1,
    w2,
    PART: tl.constexpr,
    WIDTH: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    PERIOD: tl.constexpr,
):
    """Codes WIDTH * PART up to WIDTH * (PART + 1) of a period, [BLOCK_N, WIDTH / 2], two in an int32."""
    codes = _fields(w0, PART, P0, PERIOD, WIDTH)
    if P1:
        codes |= _fields(w1, PART, P1, PERIOD, WIDTH) << P0
    if P2:
        codes |= _fields(w2, PART, P2, PERIOD, WIDTH) << (P0 + P1)
    return codes


@triton.jit
def side_by_side(low, high):
    """[rows, 2 n] of two [rows, n], column by column."""
    ROWS: tl.constexpr = low.shape[0]
    COLUMNS: tl.constexpr = low.shape[1]
    return tl.reshape(tl.join(low, high), [ROWS, 2 * COLUMNS])


@triton.jit
def values(pairs, table, BITS: tl.constexpr, GRID: tl.constexpr, DTYPE: tl.constexpr):
    """Values v - c [rows, 2 n] of DTYPE, of pairs of codes [rows, n]; levels of a codebook as they are."""
    if GRID == CODEBOOK:
        codes = side_by_side(pairs & 0xFFFF, pairs >> 16)
        v = tl.load(table + codes, eviction_policy="evict_last").to(DTYPE)
    elif DTYPE == tl.float32:
        v = wide_values(side_by_side(pairs & 0xFFFF, pairs >> 16), BITS)
    elif DTYPE == tl.bfloat16 and BITS == 8:
        codes = side_by_side(pairs & 0xFFFF, pairs >> 16)
        v = ((codes | 0x4B000000).to(tl.float32, bitcast=True) - 8388736.0).to(tl.bfloat16)
    else:
        MANTISSA: tl.constexpr = 7 if DTYPE == tl.bfloat16 else 10
        ONES: tl.constexpr = 0x3F803F80 if DTYPE == tl.bfloat16 else 0x3C003C00
        if BITS == 1:
            halves = ((pairs ^ 0x10001) << 15) | ONES
        else:
            halves = (pairs << (MANTISSA - BITS)) | ONES
        low, high = (halves & 0xFFFF).to(tl.int16), (halves >> 16).to(tl.int16)
        v = side_by_side(low, high).to(DTYPE, bitcast=True)
        if BITS > 1:
            v = v - 1.5
    return v


@triton.jit
def wide_values(codes, BITS: tl.constexpr):
    """Values v - c of codes, float32."""
    if BITS == 1:
        v = (((codes ^ 1) << 31) | 0x3F800000).to(tl.float32, bitcast=True)
    else:
        v = ((codes << (23 - BITS)) | 0x3F800000).to(tl.float32, bitcast=True) - 1.5
    return v


@triton.jit
def packed_zero_point(
    zero_point, n, g, N, BITS: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr
):
    """Zero point of row n and group g, int32, packed along the rows of W."""
    filled = (N + 31) // 32 * 32
    whole = filled // 128 * 128
    wide = n < whole
    words = zero_point + g * (filled // 32 * BITS)
    words += tl.where(wide, (n >> 7) * (4 * BITS), whole // 32 * BITS + ((n - whole) >> 5) * BITS)
    k = tl.where(wide, n & 127, n & 31)
    code = _field(words, k, wide, P0)
    if P1:
        words += tl.where(wide, 4 * P0, P0)
        code |= _field(words, k, wide, P1) << P0
    if P2:
        words += tl.where(wide, 4 * P1, P1)
        code |= _field(words, k, wide, P2) << (P0 + P1)
    return code


@triton.jit
def _field(words, k, wide, P: tl.constexpr):
    """Field of code k in one plane of a period, of 128 codes where `wide` and 32 elsewhere."""
    codes = tl.where(wide, 8 * P, 2 * P)  # that share a slot
    slot = k // codes
    word = tl.load(words + ((k % codes) >> 1))
    return (word >> ((k & 1) * 16 + slot * P)) & ((1 << P) - 1)


@triton.jit
def grid_of(
    scale,
    zero_point,
    n,
    g,
    N,
    GROUPS,
    BITS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    GRID: tl.constexpr,
):
    """Scale s and rest r of rows n and groups g, float32; without stored zero points r is 0."""
    MIDDLE: tl.constexpr = 0.5 if BITS == 1 else 1 << (BITS - 1)
    s = tl.load(scale + n * GROUPS + g).to(tl.float32)
    if GRID == PACKED:
        rest = packed_zero_point(zero_point, n, g, N, BITS, P0, P1, P2).to(tl.float32) - MIDDLE
    elif GRID == FRACTIONS:
        rest = tl.load(zero_point + n * GROUPS + g).to(tl.float32) - MIDDLE
    else:
        rest = tl.zeros_like(s)
    return s, rest
