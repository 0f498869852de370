"""Products of a few rows in bfloat16 by weights of up to 4 bits, on a CPU: torch's 4-bit kernel.

Codes are counted from the middle of their grid, exactly; scales are in bfloat16, and what zero points add is
summed in float32:

    W[n, k] = step[n, g] * v[n, k] + shift[n, g]

Letters: M rows of x, N out, K in, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUPS = (256, 128, 64, 32)  # columns that may share a scale in the kernel
ROWS_MULTIPLE = 64  # outputs that it takes at a time
# Rows of x, with and without bfloat16 in hardware; by more than the most, decoded weights are faster.
ROWS = {True: range(1, 5), False: range(1, 65)}


def fits(out_features: int, group_size: int) -> bool:
    """Whether the kernel takes weights with so many outputs and columns of a group."""
    return out_features % ROWS_MULTIPLE == 0 and group_size % GROUPS[-1] == 0


def int4_rows(values: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Lay weights out.

    Args:
        values: v [N, K], integers in [-8, 7], columns in the order of their groups.
        step: [N, G], any float dtype.

    Returns:
        v + 8 as torch packs 4 bits, and steps [K / h, N, 2], bfloat16, for every h columns.
    """
    size = values.shape[1] // step.shape[1]
    width = next(h for h in GROUPS if size % h == 0)
    scale = step.T.bfloat16().repeat_interleave(size // width, 0)
    grid = torch.stack([scale, torch.zeros_like(scale)], 2).contiguous()
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int() + 8, 1), grid


def forward(x: Tensor, packed: Tensor, grid: Tensor, shift: Tensor) -> Tensor:
    """Compute y [M, N] of x [M, K], bfloat16.

    Args:
        x: bfloat16, contiguous, columns in the order of the groups.
        packed: what `int4_rows` made, like grid.
        grid: [K / h, N, 2].
        shift: [G, N or more], float32, or [0, 0] where it is zero.
    """
    h, n = x.shape[1] // grid.shape[0], grid.shape[1]
    y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, h, grid)
    if shift.numel():
        sums = x.unflatten(1, (len(shift), -1)).sum(2, dtype=torch.float32)
        y = y.float().addmm_(sums, shift[:, :n]).to(x.dtype)
    return y
