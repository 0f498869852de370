"""Products in bfloat16 by weights of up to 4 bits, or more with one scale a row, on a CPU: torch's kernels.

torch multiplies bfloat16 by 4 bits with scales of groups, and by int8 with one scale a row, at the speed of
memory. Codes are counted from the middle of their grid, exactly; scales are rounded to bfloat16, as a weight
in bfloat16 would be, and what zero points add is summed in float32:

    W[n, k] = step[n, g] * v[n, k] + shift[n, g]

For many rows of x the weights are decoded, a chunk at a time, and multiplied as usual. Letters: M rows of x,
N out, K in, G groups, g columns of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PACKED_GROUPS = (256, 128, 64, 32)  # columns that may share a scale in torch's 4-bit kernel
ROWS_MULTIPLE = 64  # outputs that both kernels take at a time
MOST_ROWS = {True: 4, False: 64}  # of x, with and without bfloat16 in hardware; above, weights are decoded
CHUNK_WEIGHTS = 2**20  # decoded at a time


class IntRows(NamedTuple):
    """Weights, laid out.

    Attributes:
        values: v [N, K], int8.
        step: [N, G], bfloat16.
        shift: [N, G], float32, or [0] where it is zero.
        columns: [K], int64, the input columns in the order of their groups; [0] where they are in it.
        packed: v + 8 as torch packs 4 bits; [0] for wider codes.
        grid: [K / h, N, 2], bfloat16, of h columns each, as torch takes it; [0] likewise.
    """

    values: Tensor
    step: Tensor
    shift: Tensor
    columns: Tensor
    packed: Tensor
    grid: Tensor


def fits(out_features: int, in_features: int, group_size: int, bits: int) -> bool:
    """Whether the kernels take weights of this shape [out, in]."""
    grouped = group_size % PACKED_GROUPS[-1] == 0 if bits <= 4 else group_size == in_features
    return out_features % ROWS_MULTIPLE == 0 and grouped


def int_rows(
    values: Tensor, step: Tensor, shift: Tensor | None, columns: Tensor | None, bits: int
) -> IntRows:
    """Lay weights out.

    Args:
        values: v [N, K], int8, columns in the order of their groups.
        step: [N, G], float32.
        shift: the same, or None where it is zero.
        columns: [K], the input column of each column, or None if it is itself.
        bits: width of a code; up to 4, v lies in [-8, 7].
    """
    k, groups, none = values.shape[1], step.shape[1], step.new_empty(0)
    packed, grid = none, none
    if bits <= 4:
        width = next(h for h in PACKED_GROUPS if k // groups % h == 0)
        scale = step.T.bfloat16().repeat_interleave(k // groups // width, 0)
        grid = torch.stack([scale, torch.zeros_like(scale)], 2).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int() + 8, 1)
    return IntRows(
        values.contiguous(),
        step.bfloat16(),
        none if shift is None else shift.contiguous(),
        none.long() if columns is None else columns,
        packed,
        grid,
    )


def forward(x: Tensor, prepacked: Sequence[Tensor], hardware: bool) -> Tensor:
    """Compute y [M, N] of x [M, K], bfloat16.

    Args:
        x: bfloat16, contiguous.
        prepacked: the tensors of `IntRows`.
        hardware: whether the processor multiplies bfloat16 itself, so that dense products are fast.
    """
    weight = IntRows(*prepacked)
    (n, k), m = weight.values.shape, len(x)
    factor = x[:, weight.columns] if len(weight.columns) else x
    if m > MOST_ROWS[hardware]:
        y: Tensor = x.new_empty(m, n)
        dense = factor if hardware else factor.float()
        for outputs, decoded in _decoded(weight):
            y[:, outputs] = (dense @ decoded.to(dense.dtype).T).to(x.dtype)
        return y
    if len(weight.packed):
        width = k // len(weight.grid)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(factor, weight.packed, width, weight.grid)
    else:
        y = torch.ops.aten._weight_int8pack_mm(factor, weight.values, weight.step[:, 0].contiguous())
    if len(weight.shift):
        sums = factor.float().unflatten(1, (weight.shift.shape[1], -1)).sum(2)
        y = y.float().addmm_(sums, weight.shift.T).to(x.dtype)
    return y


def backward(dy: Tensor, prepacked: Sequence[Tensor], in_features: int) -> Tensor:
    """Compute dx [M, K] = dy W of dy [M, N], summed in float32."""
    weight = IntRows(*prepacked)
    dx = torch.zeros(len(dy), in_features)
    factor = dy.float()
    for outputs, decoded in _decoded(weight):
        dx.addmm_(factor[:, outputs], decoded)
    if len(weight.columns):
        dx = torch.empty_like(dx).index_copy_(1, weight.columns, dx)
    return dx.to(dy.dtype)


def _decoded(weight: IntRows) -> Iterator[tuple[slice, Tensor]]:
    """Outputs, and their weights [outputs, K], float32."""
    n, k = weight.values.shape
    together = max(CHUNK_WEIGHTS // k, 1)
    for start in range(0, n, together):
        some = slice(start, min(start + together, n))
        values = weight.values[some].float().unflatten(1, (weight.step.shape[1], -1))  # [outputs, G, g]
        values.mul_(weight.step[some].float()[..., None])
        if len(weight.shift):
            values.add_(weight.shift[some][..., None])
        yield some, values.flatten(1)
