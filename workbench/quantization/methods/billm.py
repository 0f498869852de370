"""BiLLM: salient columns in two residual bits, all others in one, split into two sets by magnitude.

Huang, Liu, Qin, Li, Zhang, Liu, Magno, Qi, "BiLLM: Pushing the Limit of Post-Training Quantization for
LLMs", arXiv 2402.04291, algorithms 1 and 2. Where this differs: the published code searches salient
columns and break-points on the saliency matrix and the paper on the weights; both are here
(`search_on`); the weights themselves are binarized in either case. As in that code the search for
salient columns gives the other columns two bits too: with one bit, more salient columns always win.

Letters: W [out, in] weights; H [in, in] Hessian; U upper Cholesky factor of H^-1; s saliency; p break-point
of the bell-shaped distribution of the rest, |w| <= p concentrated, |w| > p sparse; mu, alpha mean and
scale of a binarized set in a row and block.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from workbench.quantization.formats.planes import PlanesWeight
from workbench.quantization.hessian import upper_factor_of_inverse
from workbench.quantization.methods.binarization import Binarized, binarize, in_half
from workbench.quantization.methods.feedback import saliency, without_dead_columns
from workbench.recipe.quantization import Billm

BREAK_POINTS = 81  # quantiles 0.10, 0.11, ... 0.90 of the magnitudes


class Partition(NamedTuple):
    """How a block is cut up.

    Attributes:
        salient: [1, n], bool, whole columns.
        sparse: [out, n], bool, among the others.
    """

    salient: Tensor
    sparse: Tensor


def quantize(
    weight: Tensor, hessian: Tensor, cfg: Billm, group_size: int | Literal["channel"]
) -> tuple[PlanesWeight, dict[str, float]]:
    """Binarize a matrix, block by block. Rows interact: matrices must not be stacked.

    Args:
        weight: W [out, in], any float dtype.
        hessian: H [in, in]; its scale does not matter.
        cfg: options.
        group_size: columns of a block; divides in.

    Returns:
        The weight, and {damping, salient_share}; nominal bits are 1 + salient_share.

    Raises:
        SingularHessian: H is not positive definite even with damping.
        NumericsError: a weight is not finite.
    """
    W, H, _ = without_dead_columns(weight, hessian)
    U = upper_factor_of_inverse(H, cfg.damping).to(W.dtype)
    n = W.shape[1]
    block = n if group_size == "channel" else group_size
    stored = []
    for start in range(0, n, block):
        end = start + block
        s = saliency(W, U, start, end)
        current = W[:, start:end]
        parts = partition(s if cfg.search_on == "saliency" else current, s, cfg.salient_columns)
        binary, Q = binarize_block(current, parts)
        E = (current - Q) / U.diagonal()[start:end]  # no feedback within a block
        W[:, end:].addmm_(E, U[start:end, end:], alpha=-1)
        stored.append(binary)
    planes = PlanesWeight(
        torch.cat([part.planes for part in stored], dim=2),
        torch.cat([part.offset for part in stored if part.offset is not None], dim=2),
        torch.cat([part.step for part in stored], dim=2),
        additive=torch.cat([part.additive for part in stored if part.additive is not None]),
    )
    assert planes.additive is not None
    share = float(planes.additive.float().mean())
    return planes, {"damping": cfg.damping, "salient_share": share}


def partition(target: Tensor, s: Tensor, most_columns: int) -> Partition:
    """Choose salient columns and break-point so that the target [out, n] is binarized best (algorithm 2)."""
    target = target / target.abs().max().clamp(min=1e-30)  # saliencies may be beyond float16
    nobody = torch.zeros_like(target, dtype=torch.bool)
    ranking = s.sum(0).argsort(descending=True, stable=True)

    def most_salient(k: int) -> Tensor:
        return nobody[:1].index_fill(1, ranking[:k], True)

    errors = []
    for k in range(1, min(most_columns, target.shape[1] - 1) + 1):
        columns = most_salient(k)
        values = torch.where(columns, residual(target, columns)[2], residual(target, ~columns)[2])
        errors.append((target - values).square().sum())
    salient = most_salient(1 + int(torch.stack(errors).argmin())) if errors else nobody[:1]

    magnitude, errors = target.abs(), []
    points = _quantiles(magnitude[:, ~salient[0]].flatten())
    for p in points:
        above = (magnitude > p) & ~salient
        low, high = binarize(target, ~above & ~salient).values, binarize(target, above).values
        errors.append((target - torch.where(above, high, low)).square().masked_fill(salient, 0).sum())
    return Partition(salient, (magnitude > points[int(torch.stack(errors).argmin())]) & ~salient)


def binarize_block(W: Tensor, parts: Partition) -> tuple[PlanesWeight, Tensor]:
    """One block as stored, and the values [out, n] that it decodes to."""
    salient, sparse = parts
    concentrated, rare = binarize(W, ~sparse & ~salient), binarize(W, sparse)
    first, second, additive = residual(W, salient)
    Q = torch.where(salient, additive, torch.where(sparse, rare.values, concentrated.values))
    one = torch.where(salient, first.bits, torch.where(sparse, rare.bits, concentrated.bits))
    two = torch.where(salient, second.bits, sparse)
    offset = torch.stack([concentrated.offset, rare.offset, in_half(first.offset.float() + second.offset)])
    step = torch.stack([concentrated.step, rare.step, first.step, second.step])
    return PlanesWeight(torch.stack([one, two]), offset[..., None], step[..., None], salient[0]), Q


def residual(W: Tensor, members: Tensor) -> tuple[Binarized, Binarized, Tensor]:
    """Binarize, then what that leaves over (equation 4): both, and the sum [out, n] as it is stored."""
    first = binarize(W, members)
    second = binarize(W - first.values, members)
    offset = in_half(first.offset.float() + second.offset)[:, None].to(W)
    steps = first.step[:, None].to(W) * first.bits + second.step[:, None].to(W) * second.bits
    return first, second, offset + steps


def _quantiles(magnitudes: Tensor) -> Tensor:
    """The candidates p; by sorting, because torch.quantile refuses large inputs."""
    shares = torch.linspace(0.1, 0.9, BREAK_POINTS, dtype=torch.float64)
    ranks = (shares * (magnitudes.numel() - 1)).round().long()
    return magnitudes.sort().values[ranks.to(magnitudes.device)]
