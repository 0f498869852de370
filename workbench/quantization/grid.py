"""The uniform grid: w ~ scale * (code - zero_point), codes 0 .. 2^b - 1, one grid per group of weights.

    asymmetric    s = (max - min) / (2^b - 1),  z = round(-min / s);  the range always contains 0
    symmetric     s = 2 max|w| / (2^b - 1),     z = 2^(b-1)
    both          q = clamp(round(w / s + z), 0, 2^b - 1)

Scales are stored as float16, and a scale is rounded to float16 upwards before any code is computed
from it. The codes thus know the scale that they will meet again, the range never shrinks, and every
weight stays within half a step: |w - w^| <= s / 2, which makes 16-bit scales harmless at 8 bits too.

One bit is a case of its own, because the rules above round nearly every weight to 0. Symmetric: the
levels are -s/2 and +s/2 with s/2 = mean|w|, the least-squares choice (Rastegari et al., arXiv 1603.05279,
equation 6). Asymmetric: a level is 0, as with every integer zero point, and the other is the extreme
that is farther from it. With either, weights outside the range err by more than half a step.

Source: Frantar et al., arXiv 2210.17323, and its published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Literal

import torch
from lowbit.affine_linear import implied_zero_point
from torch import Tensor

from workbench.errors import ModelError, NumericsError

SHRINK_STEPS = 80  # candidates of the MSE grid: the range times 1 - i / 100
SHRINK_NORM = 2.4


@dataclass(frozen=True)
class Grid:
    """What grids a method may use."""

    bits: int
    group_size: int | Literal["channel"]
    symmetric: bool
    mse: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits {self.bits} is not supported; weights are quantized to 1 to 8 bits")

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def columns(self, in_features: int) -> int:
        """Input columns that share a grid."""
        return in_features if self.group_size == "channel" else self.group_size


def check_group_size(shapes: Mapping[str, tuple[int, int]], group_size: int | Literal["channel"]) -> None:
    """Refuse a group size that does not divide the input of every linear.

    Args:
        shapes: [out, in] of each linear by name.
        group_size: columns in a group, or "channel", which always fits.

    Raises:
        ModelError: names every linear that does not divide, and the sizes that divide all.
    """
    if group_size == "channel":
        return
    offending = {name: columns for name, (_, columns) in shapes.items() if columns % group_size}
    if not offending:
        return
    common = gcd(*(columns for _, columns in shapes.values()))
    sizes = [size for size in range(2, common + 1) if common % size == 0]
    fitting = f"{', '.join(map(str, sizes))} or channel" if sizes else "channel"
    listing = "\n".join(f"  {name}: in_features {columns}" for name, columns in offending.items())
    raise ModelError(
        f"group_size {group_size} does not divide the input of {len(offending)} of {len(shapes)} linears; "
        f"sizes that divide all are {fitting}\n{listing}"
    )


def fit(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The grid of each group.

    Args:
        weight: [..., n], float32 or float64; the last axis is one group.
        grid: which grids may be used.

    Returns:
        scale [...], float16, 0 for a group of zeros; zero_point [...] in code units, dtype of weight.

    Raises:
        NumericsError: a weight is not finite, or too large for a float16 scale.
    """
    low, high = _range(weight, grid)
    if not grid.mse:
        return _scale_and_zero_point(low, high, grid)
    best_error = torch.full_like(low, torch.inf)
    scale, zero_point = _scale_and_zero_point(low, high, grid)
    for i in range(SHRINK_STEPS):
        shrink = 1 - i / 100
        s, z = _scale_and_zero_point(shrink * low, shrink * high, grid)
        approximation = decode(encode(weight, s[..., None], z[..., None], grid), s[..., None], z[..., None])
        error = (weight - approximation).abs().pow(SHRINK_NORM).sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        scale, zero_point = torch.where(better, s, scale), torch.where(better, z, zero_point)
    return scale, zero_point


def encode(weight: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Give q = clamp(round(w / s + z), 0, 2^b - 1), in the dtype of weight; the three tensors broadcast."""
    step = torch.where(scale == 0, 1, scale).to(weight.dtype)
    return (weight / step + zero_point).round_().clamp_(0, grid.top)


def decode(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Give w^ = s (q - z), in the dtype of codes; the three tensors broadcast."""
    return scale.to(codes.dtype) * (codes - zero_point)


def _range(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Ends of the range that a grid should cover, [...] each, around 0."""
    if grid.bits == 1 and grid.symmetric:
        mean = weight.abs().mean(-1)
        return -mean, mean
    low, high = weight.amin(-1).clamp(max=0), weight.amax(-1).clamp(min=0)
    if grid.symmetric:
        reach = torch.maximum(-low, high)
        return -reach, reach
    if grid.bits == 1:
        below = -low > high
        return torch.where(below, low, 0), torch.where(below, 0, high)
    return low, high


def _scale_and_zero_point(low: Tensor, high: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    scale = _round_up_to_float16((high - low) / grid.top)
    if not bool(torch.isfinite(scale).all()):
        raise NumericsError(
            "a weight is NaN, infinite or beyond a float16 scale; the model is damaged: take a sound one"
        )
    if grid.symmetric:
        return scale, torch.full_like(low, implied_zero_point(grid.bits))
    return scale, (-low / torch.where(scale == 0, 1, scale)).round().clamp(0, grid.top)


def _round_up_to_float16(scale: Tensor) -> Tensor:
    """The least float16 that is not below; neighbouring positive floats are neighbouring integers."""
    half = scale.to(torch.float16)
    return (half.view(torch.int16) + (half.to(scale.dtype) < scale)).view(torch.float16)
