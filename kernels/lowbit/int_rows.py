"""Products in bfloat16 by weights of 4 and 8 bits, on a CPU: torch's own kernels, one group at a time.

torch multiplies bfloat16 by int8 with one scale a row, and by 4 bits with scales of groups, at the speed of
memory. Codes are counted from the middle of their grid, exactly; scales are rounded to bfloat16, as a weight
in bfloat16 would be, and what zero points add is summed in float32:

    W[n, k] = step[g, n] * v[n, k] + shift[g, n]

For many rows of x the weights are decoded, a chunk at a time, and multiplied as usual. Letters: M rows of x,
N out, K in, G groups, g columns of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PACKED_GROUPS = (256, 128, 64, 32)  # columns that may share a scale in torch's 4-bit kernel
SMALLEST_GROUP = 64  # of the 8-bit kernel, below which the calls take longer than the products
ROWS_MULTIPLE = 64  # outputs that both kernels take at a time
MOST_ROWS = {True: 4, False: 64}  # of x, with and without bfloat16 in hardware; above, weights are decoded
MOST_ROWS_8 = 16  # the same for 8 bits, without hardware
CHUNK_WEIGHTS = 2**20  # decoded at a time


class IntRows(NamedTuple):
    """Weights, laid out.

    Attributes:
        values: v [G, N, g], int8.
        step: [G, N], bfloat16.
        shift: [G, N], float32, or [0] where it is zero.
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


def fits(out_features: int, group_size: int, bits: int) -> bool:
    """Whether the kernels take weights of this shape, and are worth it."""
    whole = out_features % ROWS_MULTIPLE == 0
    return whole and (group_size % PACKED_GROUPS[-1] == 0 if bits <= 4 else group_size >= SMALLEST_GROUP)


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
    (n, k), groups = values.shape, step.shape[1]
    steps, none = step.T.contiguous(), step.new_empty(0)
    packed, grid = none, none
    if bits <= 4:
        width = next(h for h in PACKED_GROUPS if k // groups % h == 0)
        scale = steps.bfloat16().repeat_interleave(k // groups // width, 0)
        grid = torch.stack([scale, torch.zeros_like(scale)], 2).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int() + 8, 1)
    return IntRows(
        values.view(n, groups, -1).transpose(0, 1).contiguous(),
        steps.bfloat16(),
        none if shift is None else shift.T.contiguous(),
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
    (groups, n, g), m = weight.values.shape, len(x)
    factor = x[:, weight.columns] if len(weight.columns) else x
    narrow = len(weight.packed) > 0
    if m > (MOST_ROWS[hardware] if narrow or hardware else MOST_ROWS_8):
        y = x.new_empty(m, n)
        dense = factor if hardware else factor.float()
        for outputs, decoded in _decoded(weight):
            y[:, outputs] = (dense @ decoded.to(dense.dtype).T).to(x.dtype)
        return y
    grouped = factor.view(m, groups, g).transpose(0, 1).contiguous()  # [G, M, g]
    if narrow:
        width = groups * g // len(weight.grid)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(factor.contiguous(), weight.packed, width, weight.grid)
    elif groups == 1:
        y = torch.ops.aten._weight_int8pack_mm(grouped[0], weight.values[0], weight.step[0])
    else:
        parts = [
            torch.ops.aten._weight_int8pack_mm(grouped[i], weight.values[i], weight.step[i])
            for i in range(groups)
        ]
        y = torch.stack(parts).sum(0, dtype=torch.float32).to(x.dtype)
    if len(weight.shift):
        y = y.float().addmm_(grouped.float().sum(2).T, weight.shift).to(x.dtype)
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
    groups, n, g = weight.values.shape
    together = max(CHUNK_WEIGHTS // (groups * g), 1)
    for start in range(0, n, together):
        some = slice(start, min(start + together, n))
        values = weight.values[:, some].transpose(0, 1).float()  # [outputs, G, g]
        values.mul_(weight.step[:, some].T.float()[:, :, None])
        if len(weight.shift):
            values.add_(weight.shift[:, some].T[:, :, None])
        yield some, values.flatten(1)
