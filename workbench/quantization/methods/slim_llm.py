"""SliM-LLM: GPTQ with more bits for groups of columns that matter, fewer for as many that do not.

Huang, Qin, Liu, Li, Liu, Benini, Magno, Qi, "SliM-LLM: Salience-Driven Mixed-Precision Quantization for Large
Language Models", arXiv 2405.14917: section 3.2 salience-determined bit allocation (SBA), section 3.3
salience-weighted quantizer calibration (SQC). Where this differs: SBA compares allocations by the squared
error of the outputs, which the Hessian gives, and not by the divergence of outputs, for which all inputs
would have to be kept. Groups of one bit have the two levels -mean|w| and mean|w|.

Letters: W [out, in] weights; H [in, in] Hessian; U upper Cholesky factor of H^-1; delta = w^2 / U_ii^2
salience; b mean bits; k groups of b + 1 bits, and as many of b - 1; tau factor of a grid's range.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.formats.mixed import MixedWeight, columns_of
from workbench.quantization.grid import Grid, decode, encode, fit
from workbench.quantization.hessian import upper_factor_of_inverse
from workbench.quantization.methods.feedback import compensated, saliency, without_dead_columns
from workbench.recipe.quantization import SlimLlm

REACH, STEPS = 0.1, 50  # tau from 1 - REACH to 1 + REACH, so many steps to either side
NORM = 2.4  # of the error that tau is searched for, as in the published code
TOGETHER = 2**22  # numbers in memory at a time, of as many tau as that allows
OUTLIER = 3.0  # standard deviations above the mean salience from which on a weight is salient


def quantize(
    weight: Tensor, hessian: Tensor, cfg: SlimLlm, grid: Grid, damping: float
) -> tuple[MixedWeight, dict[str, float]]:
    """Quantize a matrix in groups of mixed width. Rows interact: matrices must not be stacked.

    Args:
        weight: W [out, in], any float dtype.
        hessian: H [in, in]; its scale does not matter.
        cfg: options.
        grid: mean bits, 2 to 7 where widths are mixed; its group size divides in.
        damping: added to the Hessian's diagonal, as a share of its mean.

    Returns:
        The weight, and {damping, groups_above}, the number k.

    Raises:
        SingularHessian: H is not positive definite even with damping.
        NumericsError: a weight is not finite.
        ValueError: mixed widths around 1 or 8 bits.
    """
    if cfg.mixed and not 2 <= grid.bits <= 7:
        raise ValueError(f"slim-llm mixes b - 1, b and b + 1 bits, found b = {grid.bits}; take 2 to 7")
    W, H, _ = without_dead_columns(weight, hessian)
    U = upper_factor_of_inverse(H, damping).to(W.dtype)
    n, size = W.shape[1], grid.columns(W.shape[1])
    groups = n // size
    widths = allocate(W, H.to(W.dtype), U, grid) if cfg.mixed else [grid.bits] * groups

    codes = torch.empty_like(W, dtype=torch.uint8)
    scales, zero_points = W.new_empty(len(W), groups, dtype=torch.float16), W.new_empty(len(W), groups)
    for g, bits in enumerate(widths):
        start, end = g * size, (g + 1) * size
        own = _grid(grid, bits)
        scale, zero_point = _fit(W, U, start, end, own) if cfg.salience_grid else fit(W[:, start:end], own)

        def nearest(
            i: int, w: Tensor, scale: Tensor = scale, zero_point: Tensor = zero_point, own: Grid = own
        ) -> Tensor:
            return decode(encode(w, scale, zero_point, own), scale, zero_point)

        Q = compensated(W, U, start, end, nearest)
        codes[:, start:end] = encode(Q, scale[:, None], zero_point[:, None], own).to(torch.uint8)
        scales[:, g], zero_points[:, g] = scale, zero_point

    above = float(sum(bits > grid.bits for bits in widths))
    return _stored(codes, scales, zero_points, widths, grid), {"damping": damping, "groups_above": above}


def allocate(W: Tensor, H: Tensor, U: Tensor, grid: Grid) -> list[int]:
    """Bits of each group (SBA): the k most salient groups get b + 1, the k least b - 1, for the best k.

    k = 0, all groups alike, is among the candidates.
    """
    size = grid.columns(W.shape[1])
    groups = W.shape[1] // size
    salience = saliency(W, U, 0, W.shape[1]).unflatten(1, (groups, size)).sum((0, 2))
    ranking: list[int] = salience.argsort(stable=True).tolist()

    blocks = W.unflatten(1, (groups, size))
    error = {}  # by width, [out, groups, size]
    for bits in (grid.bits - 1, grid.bits, grid.bits + 1):
        own = _grid(grid, bits)
        scale, zero_point = (numbers[..., None] for numbers in fit(blocks, own))
        error[bits] = blocks - decode(encode(blocks, scale, zero_point, own), scale, zero_point)

    E = error[grid.bits].clone()
    best, best_k = float((E.flatten(1) @ H * E.flatten(1)).sum()), 0
    for k in range(1, groups // 2 + 1):
        least, most = ranking[k - 1], ranking[-k]
        E[:, least], E[:, most] = error[grid.bits - 1][:, least], error[grid.bits + 1][:, most]
        loss = float((E.flatten(1) @ H * E.flatten(1)).sum())  # tr(E H E^T)
        if loss < best:
            best, best_k = loss, k
    widths = [grid.bits] * groups
    for k in range(best_k):
        widths[ranking[k]], widths[ranking[-k - 1]] = grid.bits - 1, grid.bits + 1
    return widths


def _fit(W: Tensor, U: Tensor, start: int, end: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point [out] of a group (SQC): tau with the least error, salient weights counting alone.

    The two sums of the paper, over salient and over other weights, are divided by their numbers of weights,
    so that the few salient ones are not drowned out by the many.
    """
    w = W[:, start:end]
    delta = saliency(W, U, start, end)
    salient = delta > delta.mean() + OUTLIER * delta.std()
    best = torch.full_like(w[:, 0], torch.inf)
    scale, zero_point = fit(w, grid)
    taus = 1 + REACH * torch.arange(-STEPS, STEPS + 1, device=w.device, dtype=w.dtype) / STEPS
    for some in taus.split(max(1, TOGETHER // w.numel())):
        s, z = fit(w * some[:, None, None], grid)  # [taus, out]
        wrong = w - decode(encode(w, s[..., None], z[..., None], grid), s[..., None], z[..., None])
        wrong = wrong.abs().pow(NORM)
        loss, which = (_mean(wrong, salient) + _mean(wrong, ~salient)).min(0)
        better = loss < best
        best, scale = torch.where(better, loss, best), torch.where(better, _pick(s, which), scale)
        zero_point = torch.where(better, _pick(z, which), zero_point)
    return scale, zero_point


def _pick(numbers: Tensor, which: Tensor) -> Tensor:
    """Of numbers [taus, out], those of one tau for each row."""
    return numbers.gather(0, which[None])[0]


def _stored(codes: Tensor, scales: Tensor, zero_points: Tensor, widths: list[int], grid: Grid) -> MixedWeight:
    """Codes [out, in], scales and zero points [out, groups] in their format."""
    chosen = torch.tensor(widths, dtype=torch.uint8, device=codes.device)
    parts = {}
    for bits in sorted(set(widths)):
        columns, groups = columns_of(chosen, bits, codes.shape[1]), chosen == bits
        zeros = None if _grid(grid, bits).symmetric else zero_points[:, groups]
        parts[bits] = AffineWeight(codes[:, columns], scales[:, groups], zeros, None, bits)
    return MixedWeight(chosen, parts)


def _mean(values: Tensor, members: Tensor) -> Tensor:
    """Mean of the members of each row, [..., out], of values [..., out, n]; 0 where there are none."""
    return (values * members).sum(-1) / members.sum(-1).clamp(min=1)


def _grid(grid: Grid, bits: int) -> Grid:
    """The grid of groups of a width; with one bit, an integer zero point would make a level 0."""
    return Grid(bits, grid.group_size, grid.symmetric or bits == 1, grid.mse)
