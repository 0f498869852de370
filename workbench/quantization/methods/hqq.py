"""HQQ: choose zero points so that |W - W^|^p is small, p < 1, and large errors of few weights count little.

Badri, Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023), and its published
code. The norm is split, min over z and E of |E|_p^p + beta/2 |E - (W - W^)|^2, and either is minimised
in turn: E by shrinkage, z in closed form. No calibration. Four things differ from that code: a range
always contains 0, so that a 16-bit zero point can hold every z; a group keeps its own best iteration, so
that groups do not interact; the scale is float16 from the start; z is not rounded at 4 bits.

Letters: W [out, groups, group_size] weights; s, z [out, groups, 1] scale and zero point in code units;
Q codes; E the error without its many small parts; beta, kappa, p as in the recipe.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid, decode, encode
from workbench.recipe.quantization import Hqq


def quantize(weight: Tensor, cfg: Hqq, grid: Grid) -> AffineWeight:
    """Quantize a matrix to grids with fractional zero points.

    Args:
        weight: W [out, in], any float dtype; the arithmetic is float32.
        cfg: options.
        grid: width and group size, which divides in; the zero point is what is searched, so that symmetric
            and mse_grid have no say.

    Returns:
        An affine weight whose zero_point is float16 and not an integer.

    Raises:
        NumericsError: a weight is not finite, or too large for a float16 scale.
    """
    W = weight.float().unflatten(1, (-1, grid.columns(weight.shape[1])))  # [out, groups, group_size]
    low, high = W.amin(-1, keepdim=True).clamp(max=0), W.amax(-1, keepdim=True).clamp(min=0)
    s = ((high - low) / grid.top).half()
    if not bool(torch.isfinite(s).all()):
        raise NumericsError(
            "a weight is NaN, infinite or beyond a float16 scale; the model is damaged: take a sound one"
        )
    step = torch.where(s == 0, 1, s).float()
    z = (-low / step).half()

    beta = cfg.beta
    for _ in range(cfg.iterations):
        Q = encode(W, s, z, grid)
        E = shrink(W - decode(Q, s, z), beta, cfg.p)
        z = (Q - (W - E) / step).mean(-1, keepdim=True).half()
        beta *= cfg.kappa

    codes = encode(W, s, z, grid).flatten(1).to(torch.uint8)
    return AffineWeight(codes, s[..., 0], z[..., 0], None, grid.bits)


def shrink(error: Tensor, beta: float, p: float) -> Tensor:
    """E = sign(x) relu(|x| - |x|^(p-1) / beta), generalised soft thresholding of x, any shape."""
    size = error.abs()
    return error.sign() * (size - size.clamp(min=1e-12).pow(p - 1) / beta).relu()
