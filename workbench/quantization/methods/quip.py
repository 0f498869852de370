"""QuIP: turn weights and Hessian by random rotations, so that nothing sticks out, then round with feedback.

Chee, Cai, Kuleshov, De Sa, "QuIP: 2-Bit Quantization of Large Language Models With Guarantees",
arXiv 2307.13304: section 3 LDLQ, section 4 and algorithms 1 to 3. transform `hadamard` uses the signs and
Hadamard matrices of QuIP# (Tseng et al., arXiv 2402.04396) with the same grid and rounding. Where
this differs: damping is added once, and d is stored in 16 bits, so that the rescaled weights are those of
the rounded d.

Letters: W [out, in] weights; H [in, in] Hessian; U, V rotations of out and in; d balance of the channels;
L unit lower factor of H = L D L^T; Q codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.quantization.formats.rotated import RotatedWeight
from workbench.quantization.formats.rotation import rotation
from workbench.quantization.grid import Grid
from workbench.quantization.hessian import SingularHessian, damped
from workbench.quantization.methods.feedback import without_dead_columns
from workbench.recipe.quantization import Quip

RANGE = 2.4  # the grid reaches so many root mean squares of the rotated weights, as in the published code
LAZY_COLUMNS = 128  # columns between two updates of all the rest; changes the speed and nothing else
WIDEST_BALANCE = 2.0**10


def quantize(
    weight: Tensor, hessian: Tensor, cfg: Quip, grid: Grid, seed: int
) -> tuple[RotatedWeight, dict[str, float]]:
    """Quantize a matrix in a rotated basis. Rows interact: matrices must not be stacked.

    Args:
        weight: W [out, in], any float dtype.
        hessian: H [in, in]; its scale does not matter.
        cfg: options.
        grid: its bits; one symmetric grid serves the whole matrix.
        seed: of the rotations; one seed for a whole model lets linears that read the same input share V.

    Returns:
        The weight, and {damping, clipped_share, incoherence_before, incoherence}; incoherence
        is max |w| over the root mean square.

    Raises:
        SingularHessian: H is not positive definite even with damping.
        NumericsError: a weight is not finite.
    """
    before = incoherence(weight.double())
    W, H, d = incoherent(weight, hessian, cfg, seed)
    H = damped(H / H.diagonal().mean().clamp(min=1e-300), cfg.damping)
    scale = (RANGE * W.square().mean().sqrt()).float()
    if not bool(scale > 0):
        scale = torch.ones_like(scale)  # a matrix of zeros
    precision = torch.promote_types(weight.dtype, torch.float32)
    target = ((W / scale.double() + 1) / 2 * grid.top).to(precision)
    codes = _round(target, H, grid.top, cfg)
    diagnostics = {
        "damping": cfg.damping,
        "clipped_share": float((W.abs() > scale).double().mean()),
        "incoherence_before": before,
        "incoherence": incoherence(W),
    }
    return RotatedWeight(codes.to(torch.uint8), scale, d, seed, cfg.transform, grid.bits), diagnostics


def incoherent(weight: Tensor, hessian: Tensor, cfg: Quip, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Algorithm 1: W becomes U W diag(d) V^T, H becomes V diag(d)^-1 H diag(d)^-1 V^T, in float64."""
    W, H, dead = without_dead_columns(weight.double(), hessian)
    H[dead, dead] = 0  # nothing depends on them, and once rotated no column is dead
    d = balance(W, H) if cfg.rescale else None
    if d is not None:
        W, H = W * d.double(), H / d.double() / d.double()[:, None]
    U = rotation(W.shape[0], cfg.transform, seed, "out")
    V = rotation(W.shape[1], cfg.transform, seed, "in")
    return U.apply(V.apply(W).T).T, V.apply(V.apply(H).T), d


def balance(W: Tensor, H: Tensor) -> Tensor:
    """Channel factors d_i = (H_ii / (W^T W)_ii)^(1/4), which make tr(H) |W|^2 least (section 4, "rescale").

    Returns:
        d [in], float16, of geometric mean 1; 1 where an input or its weights are always 0.
    """
    energy = W.square().sum(0)
    ratio = H.diagonal() / energy.clamp(min=1e-300)
    alive = (H.diagonal() > 0) & (energy > 0)
    logarithm = torch.where(alive, ratio, 1).log() / 4
    mean = logarithm[alive].mean() if bool(alive.any()) else 0
    d = torch.where(alive, (logarithm - mean).exp(), 1)
    return d.clamp(1 / WIDEST_BALANCE, WIDEST_BALANCE).to(torch.float16)


def unit_lower_factor(H: Tensor) -> Tensor:
    """L [in, in], unit lower triangular, with H = L D L^T for a diagonal D.

    Raises:
        SingularHessian: H is not positive definite.
    """
    L, failed_minor = torch.linalg.cholesky_ex(H)
    if failed_minor:
        raise SingularHessian(
            f"the rotated Hessian is not positive definite (minor {int(failed_minor)} of {len(H)}); raise "
            "quip.damping, calibrate on more text, or say on_singular: more_damping"
        )
    unit: Tensor = L / L.diagonal()
    return unit


def ldlq(W: Tensor, L: Tensor, top: float) -> Tensor:
    """Round columns from last to first, each after the errors of those behind it (equation 3).

    Args:
        W: [out, in] in code units.
        L: [in, in], unit lower, dtype of W.
        top: codes are clamped to [0, top]; infinity for none, which also allows negative ones.

    Returns:
        Q [out, in], whole numbers, dtype of W.
    """
    n, bottom = W.shape[1], -top if top == torch.inf else 0
    Q, E = torch.empty_like(W), torch.zeros_like(W)  # E = W - Q
    for end in range(n, 0, -LAZY_COLUMNS):
        start = max(0, end - LAZY_COLUMNS)
        feedback = E[:, end:] @ L[end:, start:end]
        for i in reversed(range(start, end)):
            Q[:, i] = (W[:, i] + feedback[:, i - start]).round_().clamp_(bottom, top)
            E[:, i] = W[:, i] - Q[:, i]
            feedback[:, : i - start].addr_(E[:, i], L[i, start:i])
    return Q


def greedy(Q: Tensor, W: Tensor, H: Tensor, top: float, passes: int) -> Tensor:
    """Improve codes one column at a time with all others fixed, until none changes (algorithm 4).

    No step raises tr((Q - W) H (Q - W)^T).

    Args:
        Q: [out, in], codes to start from.
        W: [out, in] in code units.
        H: [in, in], dtype of W.
        top: codes are clamped to [0, top].
        passes: most passes.
    """
    Q = Q.clone()
    for _ in range(passes):
        before = Q.clone()
        for end in range(Q.shape[1], 0, -LAZY_COLUMNS):
            start = max(0, end - LAZY_COLUMNS)
            gradient = (Q - W) @ H[:, start:end]
            for i in reversed(range(start, end)):
                q = (Q[:, i] - gradient[:, i - start] / H[i, i]).round_().clamp_(0, top)
                gradient.addr_(q - Q[:, i], H[i, start:end])
                Q[:, i] = q
        if torch.equal(Q, before):
            break
    return Q


def incoherence(W: Tensor) -> float:
    """Largest magnitude over the root mean square; a matrix without outliers has about 4."""
    return float(W.abs().max() / W.square().mean().sqrt().clamp(min=1e-300))


def _round(W: Tensor, H: Tensor, top: int, cfg: Quip) -> Tensor:
    if cfg.rounding == "ldlq":
        return ldlq(W, unit_lower_factor(H).to(W.dtype), top)
    order = H.diagonal().argsort(stable=True)  # ascending: LDLQ begins with the last, the largest
    W, H = W[:, order], H[order][:, order]
    Q = ldlq(W, unit_lower_factor(H).to(W.dtype), top)
    return greedy(Q, W, H.to(W.dtype), top, cfg.greedy_passes)[:, order.argsort()]
