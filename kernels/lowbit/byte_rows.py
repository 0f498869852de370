"""Products by weights kept in bytes, on a CPU: the weighted bags of embeddings that torch has in SIMD code.

torch sums rows of bytes with weights, each row u times a scale c plus a bias d of its own, in float32 and
on all cores. With a row for each input column, the outputs along it, and a bag for each group of columns,
that is the product with x inside of groups; the step of an output and a group then multiplies few sums:

    W[n, k] = step[n, g] * sum_p (c_p u_p[n, k] + d_p) + shift[n, g]
    y[n] = sum_g step[n, g] * (sum_{k in g} x[k] sum_p (c_p u_p[n, k] + d_p))
         + sum_g shift[n, g] * (sum_{k in g} x[k])

A weight is one byte, p = 1, on a grid, and two of a codebook. For many rows of x the weights are decoded,
a chunk at a time, and multiplied as usual. A small weight is kept decoded: it stays in the cache, and the
calls would take longer than the product. Letters: M rows of x, N out, K in, G groups, g columns of a
group, B blocks of outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

BLOCK = 96  # outputs along a row: sums of as many floats fill the registers of AVX2 that torch sums in
INDICES = 2**19  # of one call: enough for all cores, few enough for the cache
# Torch wakes its other threads for operations on more elements than that, which may take longer than a tenth
# of a small product; pieces below are done one after the other, if they are few.
SERIAL, MOST_PIECES = 2**15 - 1, 8
MOST_ROWS = 16  # up to so many rows of x, bags are faster than to decode
CHUNK_WEIGHTS = 2**20  # decoded at a time
SMALL = 2**18  # weights of a matrix that is kept decoded


class ByteRows(NamedTuple):
    """Weights, laid out.

    Attributes:
        rows: [B, G * parts * g, 96 + 8], uint8: bytes of 96 outputs, then c and d, float32.
        step: [B, G, 96], float32.
        shift: [G, B * 96], float32, or [0, 0] where it is zero.
        columns: [in], int64, the input columns in the order of their groups; [0] where they are in it.
    """

    rows: Tensor
    step: Tensor
    shift: Tensor
    columns: Tensor


def byte_rows(
    fields: Sequence[tuple[Tensor, float, float]],
    step: Tensor,
    shift: Tensor | None,
    columns: Tensor | None,
) -> ByteRows:
    """Lay weights out.

    Args:
        fields: bytes u_p [out, in], uint8, columns in the order of their groups, with c_p and d_p.
        step: [out, groups], float32.
        shift: the same, or None where it is zero.
        columns: [in], the input column of each column, or None if it is itself.
    """
    out_features, in_features = fields[0][0].shape
    groups, blocks = step.shape[1], -(-out_features // BLOCK)
    none = step.new_empty(0, 0)
    rows = torch.zeros(blocks, groups, len(fields), in_features // groups, BLOCK + 8, dtype=torch.uint8)
    for part, (codes, scale, bias) in enumerate(fields):
        padded = codes.new_zeros(blocks * BLOCK, in_features)
        padded[:out_features] = codes
        # [B, 96, G, g] to [B, G, g, 96]
        rows[:, :, part, :, :BLOCK] = padded.view(blocks, BLOCK, groups, -1).permute(0, 2, 3, 1)
        rows[:, :, part, :, BLOCK:] = torch.tensor([scale, bias]).view(torch.uint8)
    beside = (0, -out_features % BLOCK)
    steps = pad(step.T, beside).view(groups, blocks, BLOCK).transpose(0, 1)
    return ByteRows(
        rows.view(blocks, -1, BLOCK + 8),
        steps.contiguous(),
        none if shift is None else pad(shift.T, beside).contiguous(),
        none.long().view(0) if columns is None else columns,
    )


def forward(x: Tensor, prepacked: Sequence[Tensor], out_features: int) -> Tensor:
    """Compute y [M, out] of x [M, in], in float32 inside.

    Args:
        x: any float dtype.
        prepacked: the tensors of `ByteRows`, or W alone, [out, in], float32.
        out_features: outputs without padding.
    """
    if len(prepacked) == 1:
        return linear(x.float(), prepacked[0]).to(x.dtype)
    weight = ByteRows(*prepacked)
    factor = x[:, weight.columns] if len(weight.columns) else x
    if len(x) <= MOST_ROWS:
        return _bags(factor, weight)[:, :out_features].to(x.dtype).contiguous()
    y = torch.empty(len(x), out_features, dtype=x.dtype)
    factor = factor.to(x.dtype if x.dtype == torch.bfloat16 and hardware() else torch.float32)
    for outputs, decoded in _decoded(weight, out_features, x.shape[1]):
        y[:, outputs] = factor @ decoded.to(factor.dtype)
    return y


def backward(dy: Tensor, prepacked: Sequence[Tensor], in_features: int) -> Tensor:
    """Compute dx [M, in] = dy W of dy [M, out], summed in float32; `prepacked` is as in `forward`."""
    if len(prepacked) == 1:
        return (dy.float() @ prepacked[0]).to(dy.dtype)
    weight = ByteRows(*prepacked)
    dx = torch.zeros(len(dy), in_features)
    factor = dy.float()
    for outputs, decoded in _decoded(weight, dy.shape[1], in_features):
        dx.addmm_(factor[:, outputs], decoded.T)
    if len(weight.columns):
        dx = torch.empty_like(dx).index_copy_(1, weight.columns, dx)
    return dx.to(dy.dtype)


def _bags(x: Tensor, weight: ByteRows) -> Tensor:
    """Compute y [M, B * 96], float32, of x [M, in], any float dtype, columns in the order of the groups."""
    (m, in_features), (blocks, length, _), groups = x.shape, weight.rows.shape, weight.step.shape[1]
    together = min(max(INDICES // (m * length), 1), blocks)  # blocks in a call
    grouped = x.view(m, groups, 1, -1)
    factors = torch.empty(groups, m, length // in_features, grouped.shape[3])
    factors = torch.cat([factors.copy_(grouped.transpose(0, 1))] * together)
    if together == blocks:
        y = _block_sums(weight.rows, weight.step, factors)
    else:
        blocks_of_rows, blocks_of_steps = weight.rows.split(together), weight.step.split(together)
        each = zip(blocks_of_rows, blocks_of_steps, strict=True)
        y = torch.cat([_block_sums(rows, step, factors[: len(step) * groups]) for rows, step in each], 1)
    if len(weight.shift):
        y = y.addmm_(grouped.sum((2, 3), dtype=torch.float32), weight.shift)
    return y


def _block_sums(rows: Tensor, step: Tensor, factors: Tensor) -> Tensor:
    """Compute y [M, b * 96] of rows [b, G * parts * g, 104], step [b, G, 96] and x [b * G, M, parts, g]."""
    bags, m, parts, g = factors.shape
    index, offsets = _index(bags, m, parts * g)
    bag = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    sums: Tensor = bag(rows.view(-1, BLOCK + 8), index, offsets, False, 0, False, factors.view(-1))
    sums, step = sums.view(*step.shape[:2], m, BLOCK), step.unsqueeze(2)
    alone = SERIAL // (m * step[0].numel())  # blocks in an operation without other threads
    if alone * MOST_PIECES < len(step):
        y = sums.mul_(step).sum(1)
    else:
        pieces = zip(sums.split(alone), step.split(alone), strict=True)
        y = torch.cat([piece.mul_(own).sum(1) for piece, own in pieces])
    return y.transpose(0, 1).reshape(m, -1)


@lru_cache(16)
def _index(bags: int, m: int, size: int) -> tuple[Tensor, Tensor]:
    """Numbers of the rows in bags of as many neighbours, each bag m times, and where each begins, int32."""
    rows = torch.arange(bags * size, dtype=torch.int32).view(bags, 1, size)
    offsets = torch.arange(0, m * bags * size, size, dtype=torch.int32)
    return rows.expand(-1, m, -1).flatten(), offsets


def _decoded(weight: ByteRows, out_features: int, in_features: int) -> Iterator[tuple[slice, Tensor]]:
    """Outputs, and their weights [in, outputs], float32."""
    (blocks, length, _), groups = weight.rows.shape, weight.step.shape[1]
    parts = length // in_features
    fields = weight.rows.view(blocks, groups, parts, -1, BLOCK + 8)
    c_d = fields[0, 0, :, 0, BLOCK:].contiguous().view(torch.float32)  # [parts, 2]
    (scale, *others), bias = c_d[:, 0].tolist(), float(c_d[:, 1].sum())
    together = min(max(CHUNK_WEIGHTS // (in_features * BLOCK), 1), blocks)
    for start in range(0, blocks, together):
        some = slice(start, min(start + together, blocks))
        outputs = slice(start * BLOCK, min(some.stop * BLOCK, out_features))
        values = fields[some, :, 0, :, :BLOCK].permute(1, 2, 0, 3)  # [G, g, blocks, 96]
        values = values.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale)
        for part, other in enumerate(others, 1):
            values.add_(fields[some, :, part, :, :BLOCK].permute(1, 2, 0, 3), alpha=other)
        step = weight.step[some].transpose(0, 1)[:, None]  # [G, 1, blocks, 96]
        offset = bias * step
        if len(weight.shift):
            offset = offset + weight.shift.view(groups, 1, blocks, BLOCK)[:, :, some]
        decoded = torch.addcmul(offset, values, step, out=values).view(in_features, -1)
        yield outputs, decoded[:, : outputs.stop - outputs.start]


@cache
def hardware() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_bf16", False) or known.get("avx512_bf16", False))
