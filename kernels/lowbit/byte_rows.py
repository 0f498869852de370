"""Products by weights kept in bytes, on a CPU: the weighted bags of embeddings that torch has in SIMD code.

torch sums rows of bytes with weights, each row u times a scale c plus a bias d of its own, in float32 and
on all cores. With a row for each input column, the outputs along it, and a bag for each group of columns,
that is the product with x inside of groups; the step of an output and a group then multiplies few sums:

    W[n, k] = step[n, g] * (u[n, k] + d) + shift[n, g]
    y[n] = sum_g step[n, g] * (sum_{k in g} x[k] (u[n, k] + d)) + sum_g shift[n, g] * (sum_{k in g} x[k])

For many rows of x the weights are decoded, a chunk at a time, and multiplied as usual. Letters: M rows of x,
N out, K in, G groups, g columns of a group, B blocks of outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lowbit.dense_rows import hardware

BLOCK = 96  # outputs along a row: sums of as many floats fill the registers of AVX2 that torch sums in
INDICES = 2**19  # of one call: enough for all cores, few enough for the cache
MOST_ROWS = 16  # up to so many rows of x, bags are faster than to decode
CHUNK_WEIGHTS = 2**20  # decoded at a time


class ByteRows(NamedTuple):
    """Weights, laid out.

    Attributes:
        rows: [B, K, 96 + 8], uint8: bytes of 96 outputs, then c = 1 and d, float32.
        step: [B, G, 96], float32.
        shift: [G, B * 96], float32, or [0, 0] where it is zero.
        columns: [K], int64, the input columns in the order of their groups; [0] where they are in it.
    """

    rows: Tensor
    step: Tensor
    shift: Tensor
    columns: Tensor


def byte_rows(
    codes: Tensor, bias: float, step: Tensor, shift: Tensor | None, columns: Tensor | None
) -> ByteRows:
    """Lay weights out.

    Args:
        codes: bytes u [N, K], uint8, columns in the order of their groups.
        bias: d.
        step: [N, G], float32.
        shift: the same, or None where it is zero.
        columns: [K], the input column of each column, or None if it is itself.
    """
    (n, k), groups = codes.shape, step.shape[1]
    blocks, none = -(-n // BLOCK), step.new_empty(0, 0)
    padded = codes.new_zeros(blocks * BLOCK, k)
    padded[:n] = codes
    rows = torch.empty(blocks, k, BLOCK + 8, dtype=torch.uint8)
    rows[..., :BLOCK] = padded.view(blocks, BLOCK, k).transpose(1, 2)
    rows[..., BLOCK:] = torch.tensor([1.0, bias]).view(torch.uint8)
    beside = (0, -n % BLOCK)
    steps = pad(step.T, beside).view(groups, blocks, BLOCK).transpose(0, 1)
    return ByteRows(
        rows,
        steps.contiguous(),
        none if shift is None else pad(shift.T, beside).contiguous(),
        none.long().view(0) if columns is None else columns,
    )


def forward(x: Tensor, prepacked: Sequence[Tensor], out_features: int) -> Tensor:
    """Compute y [M, out] of x [M, in], in float32 inside.

    Args:
        x: any float dtype.
        prepacked: the tensors of `ByteRows`.
        out_features: outputs without padding.
    """
    weight = ByteRows(*prepacked)
    factor = x[:, weight.columns] if weight.columns.numel() else x
    if x.shape[0] <= MOST_ROWS:
        return _bags(factor, weight)[:, :out_features].to(x.dtype).contiguous()
    y = torch.empty(len(x), out_features, dtype=x.dtype)
    factor = factor.to(x.dtype if x.dtype == torch.bfloat16 and hardware() else torch.float32)
    for outputs, decoded in _decoded(weight, out_features, x.shape[1]):
        y[:, outputs] = factor @ decoded.to(factor.dtype)
    return y


def backward(dy: Tensor, prepacked: Sequence[Tensor], in_features: int) -> Tensor:
    """Compute dx [M, in] = dy W of dy [M, out], summed in float32; `prepacked` is as in `forward`."""
    weight = ByteRows(*prepacked)
    dx = torch.zeros(len(dy), in_features)
    factor = dy.float()
    for outputs, decoded in _decoded(weight, dy.shape[1], in_features):
        dx.addmm_(factor[:, outputs], decoded.T)
    if len(weight.columns):
        dx = torch.empty_like(dx).index_copy_(1, weight.columns, dx)
    return dx.to(dy.dtype)


def _bags(x: Tensor, weight: ByteRows) -> Tensor:
    """Compute y [M, B * 96], float32, of x [M, K], any float dtype, columns in the order of the groups."""
    (m, k), (blocks, groups, _) = x.shape, weight.step.shape
    together = min(max(INDICES // (m * k), 1), blocks)  # blocks in a call
    grouped = x.view(m, groups, -1)
    once = torch.empty(groups, m, k // groups).copy_(grouped.transpose(0, 1))
    factors = torch.cat([once] * together)
    if together == blocks:
        y = _block_sums(weight.rows, weight.step, factors)
    else:
        blocks_of_rows, blocks_of_steps = weight.rows.split(together), weight.step.split(together)
        each = zip(blocks_of_rows, blocks_of_steps, strict=True)
        y = torch.cat([_block_sums(rows, step, factors[: len(step) * groups]) for rows, step in each], 1)
    if weight.shift.numel():
        y = y.addmm_(grouped.sum(2, dtype=torch.float32), weight.shift)
    return y


def _block_sums(rows: Tensor, step: Tensor, factors: Tensor) -> Tensor:
    """Compute y [M, b * 96] of rows [b, K, 104], step [b, G, 96] and x [b * G, M, g]."""
    bags, m, g = factors.shape
    index, offsets = _index(bags, m, g)
    bag = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    sums: Tensor = bag(rows.view(-1, BLOCK + 8), index, offsets, False, 0, False, factors.view(-1))
    y = sums.view(*step.shape[:2], m, BLOCK).mul_(step.unsqueeze(2)).sum(1)
    return y.transpose(0, 1).reshape(m, -1)


@lru_cache(16)
def _index(bags: int, m: int, size: int) -> tuple[Tensor, Tensor]:
    """Numbers of the rows in bags of as many neighbours, each bag m times, and where each begins, int32."""
    rows = torch.arange(bags * size, dtype=torch.int32).view(bags, 1, size)
    offsets = torch.arange(0, m * bags * size, size, dtype=torch.int32)
    return rows.expand(-1, m, -1).flatten(), offsets


def _decoded(weight: ByteRows, out_features: int, in_features: int) -> Iterator[tuple[slice, Tensor]]:
    """Outputs, and their weights [in, outputs], float32."""
    (blocks, groups, _), fields = weight.step.shape, weight.rows[..., :BLOCK]
    bias = float(weight.rows[0, 0, BLOCK + 4 :].contiguous().view(torch.float32))
    together = min(max(CHUNK_WEIGHTS // (in_features * BLOCK), 1), blocks)
    for start in range(0, blocks, together):
        some = slice(start, min(start + together, blocks))
        outputs = slice(start * BLOCK, min(some.stop * BLOCK, out_features))
        values = fields[some].transpose(0, 1)  # [in, blocks, 96]
        values = values.to(torch.float32, memory_format=torch.contiguous_format)
        values = values.view(groups, -1, some.stop - start, BLOCK)
        step = weight.step[some].transpose(0, 1)[:, None]  # [G, 1, blocks, 96]
        offset = bias * step
        if len(weight.shift):
            offset = offset + weight.shift.view(groups, 1, blocks, BLOCK)[:, :, some]
        decoded = torch.addcmul(offset, values, step, out=values).view(in_features, -1)
        yield outputs, decoded[:, : outputs.stop - outputs.start]
