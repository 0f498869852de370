"""PB-LLM: the salient weights keep 8 bits, all others become one of two levels.

Shang, Yuan, Wu, Dong, "PB-LLM: Partially Binarized Large Language Models", arXiv 2310.00034, section 3,
with the GPTQ-style feedback of its published code. Where this differs: the share of salient weights
is met exactly in every block of columns. The paper's mean and scale are optimal for binarized weights;
the published code takes them over the whole row, salient weights counting as zeros (`statistics`).

Letters: W [out, in] weights; H [in, in] Hessian; U upper Cholesky factor of H^-1; v saliency; r share of
salient weights, from nominal bits = salient_bits r + (1 - r); m mean and a scale of binarized weights,
m + a sign(w - m), of each row and block.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from workbench.quantization.formats.planes import PlanesWeight, Salient
from workbench.quantization.grid import Grid, decode, encode, fit
from workbench.quantization.hessian import upper_factor_of_inverse
from workbench.quantization.methods.binarization import binarize
from workbench.quantization.methods.feedback import compensated, saliency, without_dead_columns
from workbench.recipe.quantization import PbLlm


def quantize(
    weight: Tensor, hessian: Tensor, cfg: PbLlm, bits: float, group_size: int | Literal["channel"]
) -> tuple[PlanesWeight, dict[str, float]]:
    """Binarize a matrix but for its salient weights. Rows interact: matrices must not be stacked.

    Args:
        weight: W [out, in], any float dtype.
        hessian: H [in, in]; its scale does not matter.
        cfg: options.
        bits: nominal bits a weight, between 1 and salient_bits.
        group_size: columns of a block; divides in.

    Returns:
        The weight, and {damping, salient_share}.

    Raises:
        SingularHessian: H is not positive definite even with damping.
        NumericsError: a weight is not finite.
    """
    W, H, _ = without_dead_columns(weight, hessian)
    U = upper_factor_of_inverse(H, cfg.damping).to(W.dtype)
    n = W.shape[1]
    block = n if group_size == "channel" else group_size
    r = (bits - 1) / (cfg.salient_bits - 1)
    fine = Grid(cfg.salient_bits, "channel", symmetric=False)
    scale, zero_point = fit(W, fine)  # [out]: one grid for the salient weights of a row

    salient, Q = torch.zeros_like(W, dtype=torch.bool), torch.empty_like(W)
    offsets, steps = [], []
    for start in range(0, n, block):
        end = start + block
        v = saliency(W, U, start, end) if cfg.saliency == "hessian" else W[:, start:end].abs()
        salient[:, start:end] = _largest(v, round(r * v.numel()))
        binary = binarize(W[:, start:end], ~salient[:, start:end], count_all=cfg.statistics == "published")
        low, step = binary.offset.to(W), binary.step.to(W)

        def nearest(i: int, w: Tensor, low: Tensor = low, step: Tensor = step) -> Tensor:
            coarse = low + step * (w > low + step / 2)
            exact = decode(encode(w, scale, zero_point, fine), scale, zero_point)
            return torch.where(salient[:, i], exact, coarse)

        Q[:, start:end] = compensated(W, U, start, end, nearest)
        offsets.append(binary.offset)
        steps.append(binary.step)

    codes = encode(Q, scale[:, None], zero_point[:, None], fine)[salient].to(torch.uint8)
    kept = Salient(salient, codes, scale, zero_point.to(torch.uint8))
    share = float(salient.float().mean())
    return _stored(Q, offsets, steps, kept, cfg), {"damping": cfg.damping, "salient_share": share}


def _stored(Q: Tensor, offsets: list[Tensor], steps: list[Tensor], kept: Salient, cfg: PbLlm) -> PlanesWeight:
    """The values Q [out, in] in their format; offset and step [out] of each block."""
    offset, step = torch.stack(offsets, 1), torch.stack(steps, 1)  # [out, blocks]
    middle = (offset.to(Q) + step.to(Q) / 2).repeat_interleave(Q.shape[1] // len(offsets), dim=1)
    upper = (Q - middle > 0) & ~kept.mask
    return PlanesWeight(upper[None], offset[None], step[None], salient=kept, salient_bits=cfg.salient_bits)


def _largest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest values of a matrix; of equals the first ones."""
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.flatten().argsort(descending=True, stable=True)[:count]] = True
    return mask.view(values.shape)
