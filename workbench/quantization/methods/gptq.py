"""GPTQ: quantize column by column, and let the columns to come make up for the error of each.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers", arXiv 2210.17323, algorithm 1, with the options of its published code
(act_order, static_groups, MSE grid). One thing differs from that code: without static_groups a grid is
fitted to weights that have received the errors of all earlier columns, not only of earlier lazy
blocks, so that block_size changes the speed and nothing else.

Letters: W [out, in] weights; H [in, in] Hessian 2 X X^T; U upper Cholesky factor of H^-1, the paper's
Cholesky(H^-1)^T; Q quantized column; E quantization errors of a lazy block; i column.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid, decode, encode, fit
from workbench.quantization.hessian import upper_factor_of_inverse
from workbench.recipe.quantization import Gptq


def quantize(weight: Tensor, hessian: Tensor, cfg: Gptq, grid: Grid) -> AffineWeight:
    """Quantize a matrix so that its outputs on the calibration inputs change little.

    Rows do not interact: matrices that share an input can be stacked along their rows.

    Args:
        weight: W [out, in], any float dtype; the arithmetic is float32, or float64 for float64 weights.
        hessian: H [in, in]; its scale does not matter.
        cfg: options.
        grid: which grids may be used; its group size divides in.

    Raises:
        SingularHessian: H is not positive definite even with damping.
        NumericsError: a weight is not finite.
    """
    W = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
    H = hessian.double()
    columns, group_size = W.shape[1], grid.columns(W.shape[1])

    dead = H.diagonal() == 0  # inputs that are always 0: what the weight is does not matter
    H = H + torch.diag(dead.to(H.dtype))
    W[:, dead] = 0

    order = H.diagonal().argsort(descending=True, stable=True) if cfg.act_order else torch.arange(columns)
    order = order.to(W.device)
    group_of = torch.arange(columns, device=W.device) // group_size
    if cfg.static_groups:
        scale, zero_point = fit(W.unflatten(1, (-1, group_size)), grid)  # [out, groups]
        group_of = group_of[order]
    else:
        scale = W.new_empty(W.shape[0], columns // group_size, dtype=torch.float16)
        zero_point = torch.empty_like(scale, dtype=W.dtype)

    W = W[:, order]
    U = upper_factor_of_inverse(H[order][:, order], cfg.damping).to(W.dtype)
    codes = torch.empty_like(W, dtype=torch.uint8)
    groups = group_of.tolist()

    for start, end in _lazy_blocks(columns, cfg.block_size, group_size):
        E = W.new_empty(W.shape[0], end - start)
        for i in range(start, end):
            g = groups[i]
            if not cfg.static_groups and i % group_size == 0:
                scale[:, g], zero_point[:, g] = fit(W[:, i : i + group_size], grid)
            q = encode(W[:, i], scale[:, g], zero_point[:, g], grid)
            Q = decode(q, scale[:, g], zero_point[:, g])
            E[:, i - start] = (W[:, i] - Q) / U[i, i]
            W[:, i:end].addr_(E[:, i - start], U[i, i:end], alpha=-1)
            codes[:, i] = q
        W[:, end:].addmm_(E, U[start:end, end:], alpha=-1)

    original = order.argsort()  # undoes the permutation
    scattered = cfg.act_order and not cfg.static_groups and scale.shape[1] > 1
    g_idx = group_of[original].to(torch.int16) if scattered else None
    return AffineWeight(codes[:, original], scale, None if grid.symmetric else zero_point, g_idx, grid.bits)


def _lazy_blocks(columns: int, block_size: int, group_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of columns between two updates of all the rest.

    A range holds whole groups, or lies within one: so a group's grid is always fitted to weights
    that have seen every earlier column.
    """
    step = block_size // group_size * group_size or block_size
    span = max(step, group_size)
    for first in range(0, columns, span):
        last = min(first + span, columns)
        for start in range(first, last, step):
            yield start, min(start + step, last)
