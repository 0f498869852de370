"""The product on a CPU: weights laid out as rows of bytes where the caller keeps them so, else decoded.

Two bytes say the level of a weight, as a number of 16 bits between the least and the greatest level: 2^-17
of that distance off at most, far less than a weight in bfloat16 is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from lowbit import byte_rows
from lowbit.affine_linear.layout import unpack
from lowbit.codebook_linear.reference import BITS, dequantize_packed

CHUNK_WEIGHTS = 2**20  # decoded at a time


def prepack(codes: Tensor, scale: Tensor, table: Tensor, in_features: int) -> list[Tensor]:
    """Lay weights out as rows of bytes, in about 18 bits a weight.

    Args:
        codes: as in `op.codebook_linear`, like the rest.
        scale: [out, groups].
        table: [16].
        in_features: input columns.

    Returns:
        The tensors of `ByteRows`, or W alone, float32, if it is small.
    """
    if len(scale) * in_features <= byte_rows.SMALL:
        return [torch.cat([weight for _, weight in _decoded(codes, scale, table, in_features)])]
    least, greatest = float(table.min()), float(table.max())
    unit = (greatest - least) / 65535
    levels = ((table.double() - least) / (unit or 1.0)).round().int()
    index = unpack(codes, BITS, in_features).int()
    high, low = ((levels >> 8).to(torch.uint8)[index], (levels & 255).to(torch.uint8)[index])
    fields = [(high, 256 * unit, least), (low, unit, 0.0)]
    return list(byte_rows.byte_rows(fields, scale.float(), None, None))


def forward(x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor]) -> Tensor:
    """Compute y [M, out] of x [M, in], in float32 inside; the other arguments are as in `prepack`."""
    if prepacked:
        return byte_rows.forward(x, prepacked, len(scale))
    y = torch.empty(len(x), len(scale), dtype=x.dtype)
    factor = x.float()
    for rows, weight in _decoded(codes, scale, table, x.shape[1]):
        y[:, rows] = linear(factor, weight)
    return y


def backward(
    dy: Tensor, codes: Tensor, scale: Tensor, table: Tensor, in_features: int, prepacked: Sequence[Tensor]
) -> Tensor:
    """Compute dx [M, in] = dy W of dy [M, out], summed in float32."""
    if prepacked:
        return byte_rows.backward(dy, prepacked, in_features)
    dx = torch.zeros(len(dy), in_features)
    factor = dy.float()
    for rows, weight in _decoded(codes, scale, table, in_features):
        dx.addmm_(factor[:, rows], weight)
    return dx.to(dy.dtype)


def _decoded(codes: Tensor, scale: Tensor, table: Tensor, in_features: int) -> Iterator[tuple[slice, Tensor]]:
    """Output rows, and their weights [rows, in], float32."""
    together = max(CHUNK_WEIGHTS // in_features, 1)
    for start in range(0, len(scale), together):
        rows = slice(start, start + together)
        yield rows, dequantize_packed(codes[rows], scale[rows], table, in_features)
