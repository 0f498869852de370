"""Products in bfloat16 by codes of 5 to 8 bits with one scale a row, on a CPU: torch's int8 kernel.

Codes are counted from the middle of their grid, exactly; scales are rounded to bfloat16, as a weight in
bfloat16 would be, and what zero points add is summed in float32:

    W[n, k] = step[n] * v[n, k] + shift[n]

For many rows of x the weights are decoded, a chunk at a time, and multiplied as usual. Letters: M rows of x,
N out, K in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_MULTIPLE = 64  # outputs that the kernel takes at a time
MOST_ROWS = {True: 4, False: 64}  # of x, with and without bfloat16 in hardware; above, weights are decoded
CHUNK_WEIGHTS = 2**20  # decoded at a time


class Int8Rows(NamedTuple):
    """Weights, laid out.

    Attributes:
        values: v [N, K], int8.
        step: [N], bfloat16.
        shift: [N], float32, or [0] where it is zero.
    """

    values: Tensor
    step: Tensor
    shift: Tensor


def fits(out_features: int) -> bool:
    """Whether the kernel takes weights with so many outputs."""
    return out_features % ROWS_MULTIPLE == 0


def int8_rows(values: Tensor, step: Tensor, shift: Tensor | None) -> Int8Rows:
    """Lay weights out.

    Args:
        values: v [N, K], int8.
        step: [N], float32.
        shift: [N], float32, or None where it is zero.
    """
    none = step.new_empty(0)
    return Int8Rows(values.contiguous(), step.bfloat16(), none if shift is None else shift.contiguous())


def forward(x: Tensor, prepacked: Sequence[Tensor], hardware: bool) -> Tensor:
    """Compute y [M, N] of x [M, K], bfloat16.

    Args:
        x: bfloat16, contiguous.
        prepacked: the tensors of `Int8Rows`.
        hardware: whether the processor multiplies bfloat16 itself, so that dense products are fast.
    """
    weight = Int8Rows(*prepacked)
    if x.shape[0] > MOST_ROWS[hardware]:
        y: Tensor = x.new_empty(len(x), len(weight.values))
        dense = x if hardware else x.float()
        for outputs, decoded in _decoded(weight):
            y[:, outputs] = (dense @ decoded.to(dense.dtype).T).to(x.dtype)
        return y
    y = torch.ops.aten._weight_int8pack_mm(x, weight.values, weight.step)
    if weight.shift.numel():
        y = y.float().addr_(x.sum(1, dtype=torch.float32), weight.shift).to(x.dtype)
    return y


def backward(dy: Tensor, prepacked: Sequence[Tensor]) -> Tensor:
    """Compute dx [M, K] = dy W of dy [M, N], summed in float32."""
    weight = Int8Rows(*prepacked)
    dx = torch.zeros(len(dy), weight.values.shape[1])
    factor = dy.float()
    for outputs, decoded in _decoded(weight):
        dx.addmm_(factor[:, outputs], decoded)
    return dx.to(dy.dtype)


def _decoded(weight: Int8Rows) -> Iterator[tuple[slice, Tensor]]:
    """Outputs, and their weights [outputs, K], float32."""
    n, k = weight.values.shape
    together = max(CHUNK_WEIGHTS // k, 1)
    for start in range(0, n, together):
        some = slice(start, start + together)
        values = weight.values[some].float().mul_(weight.step[some].float()[:, None])
        yield some, values.add_(weight.shift[some, None]) if len(weight.shift) else values
