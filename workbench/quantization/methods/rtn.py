"""RTN: every weight to the nearest point of the grid of its group, without looking at data.

The baseline of every study, among them Huang et al., arXiv 2404.14047, equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid, encode, fit


def quantize(weight: Tensor, grid: Grid) -> AffineWeight:
    """Round a matrix to its grids.

    Args:
        weight: W [out, in], any float dtype.
        grid: which grids may be used; its group size divides in.

    Raises:
        NumericsError: a weight is not finite.
    """
    groups = weight.float().unflatten(1, (-1, grid.columns(weight.shape[1])))  # [out, groups, group_size]
    scale, zero_point = fit(groups, grid)
    codes = encode(groups, scale[..., None], zero_point[..., None], grid).flatten(1)
    return AffineWeight(codes.to(torch.uint8), scale, None if grid.symmetric else zero_point, None, grid.bits)
