"""The product on a CPU: weights decoded once where the caller keeps them so, else a chunk at a time.

A CPU has no instruction that looks 4 bits up in 16 floats: decoded weights are read in less time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from lowbit import dense_rows
from lowbit.codebook_linear.reference import dequantize_packed

CHUNK_WEIGHTS = 2**20  # decoded at a time


def prepack(
    codes: Tensor, scale: Tensor, table: Tensor, in_features: int, dtype: torch.dtype
) -> list[Tensor]:
    """Decode weights.

    Args:
        codes: as in `op.codebook_linear`, like the rest.
        scale: [out, groups].
        table: [16].
        in_features: input columns.
        dtype: of x.

    Returns:
        W alone, [out, in], in bfloat16 for x in bfloat16, else in float32.
    """
    kept = dtype if dtype == torch.bfloat16 else torch.float32
    return [torch.cat([weight.to(kept) for _, weight in _decoded(codes, scale, table, in_features)])]


def forward(x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor]) -> Tensor:
    """Compute y [M, out] of x [M, in], summed in float32; the other arguments are as in `prepack`."""
    if prepacked:
        return dense_rows.forward(x, prepacked[0])
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
        return dense_rows.backward(dy, prepacked[0])
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
