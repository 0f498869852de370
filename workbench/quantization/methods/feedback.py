"""What methods with error feedback share: dead columns, saliency, and the steps over columns.

Letters as in GPTQ (arXiv 2210.17323, algorithm 1): W [out, in] weights; H [in, in] Hessian; U upper
Cholesky factor of H^-1; Q what W becomes; E errors of some columns, each divided by its U_ii.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.errors import NumericsError


def without_dead_columns(weight: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs that are always 0: their weights are set to 0, their diagonal to 1.

    Args:
        weight: W [out, in], any float dtype; not changed.
        hessian: H [in, in]; not changed.

    Returns:
        W, float32, or float64 for float64 weights; H, float64; which columns are dead, [in], bool.

    Raises:
        NumericsError: a weight is not finite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise NumericsError("a weight is NaN or infinite; the model is damaged: take a sound one")
    H = hessian.double()
    dead = H.diagonal() == 0
    W = weight.to(torch.promote_types(weight.dtype, torch.float32)).masked_fill(dead, 0)
    return W, H + torch.diag(dead.to(H.dtype)), dead


def compensated(
    W: Tensor, U: Tensor, start: int, end: int, nearest: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Quantize columns start .. end one by one; all later columns make up for the errors.

    Args:
        W: [out, in]; columns from start on are overwritten by what they become for the rest.
        U: [in, in], dtype of W.
        start: first column.
        end: one after the last.
        nearest: from a column's number and its current weights [out] to its values.

    Returns:
        Q [out, end - start].
    """
    Q, E = W[:, start:end].clone(), W.new_empty(W.shape[0], end - start)
    for i in range(start, end):
        Q[:, i - start] = nearest(i, W[:, i])
        E[:, i - start] = (W[:, i] - Q[:, i - start]) / U[i, i]
        W[:, i:end].addr_(E[:, i - start], U[i, i:end], alpha=-1)
    W[:, end:].addmm_(E, U[start:end, end:], alpha=-1)
    return Q


def saliency(W: Tensor, U: Tensor, start: int, end: int) -> Tensor:
    """w^2 / U_ii^2 of columns start .. end: what leaving a weight out costs, [out, end - start]."""
    return (W[:, start:end] / U.diagonal()[start:end]) ** 2
