"""The Hessian of a linear's squared output error: its factor, and what is done where it has none.

H = 2/N * sum of x x^T over N calibration tokens is positive semidefinite; with few tokens or dependent
inputs it is singular, and damping, a share of its mean diagonal added to its diagonal, makes it definite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import torch
from torch import Tensor

from workbench.errors import NumericsError

OnSingular = Literal["error", "more_damping", "rtn"]
FIRST_EXTRA_DAMPING = 0.01
LAST_EXTRA_DAMPING = 1.0
Result = TypeVar("Result")


class SingularHessian(NumericsError):
    """A Hessian has no Cholesky factor, in spite of damping."""


def upper_factor_of_inverse(hessian: Tensor, damping: float) -> Tensor:
    """U [in, in], upper triangular, with U^T U = (H + damping * mean(diag H) * I)^-1, in float64.

    Args:
        hessian: H [in, in], float64, without dead columns.
        damping: share of the mean diagonal.

    Raises:
        SingularHessian: H is not positive definite even so.
    """
    L, failed_minor = torch.linalg.cholesky_ex(damped(hessian, damping))
    U: Tensor = L
    if not failed_minor:
        U, failed_minor = torch.linalg.cholesky_ex(torch.cholesky_inverse(L), upper=True)
    if failed_minor:
        raise SingularHessian(
            f"the Hessian with damping {damping:g} is not positive definite (minor {int(failed_minor)} "
            f"of {len(hessian)}); raise the method's damping, for instance to {10 * damping:g}, calibrate on "
            "more text, or say on_singular: more_damping"
        )
    return U


def damped(hessian: Tensor, damping: float) -> Tensor:
    """H + damping * mean(diag H) * I, [in, in]."""
    extra = damping * hessian.diagonal().mean()
    return hessian + extra * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)


def factored(
    quantize: Callable[[Tensor], Result], hessian: Tensor, on_singular: OnSingular
) -> tuple[Result, dict[str, float]]:
    """Quantize with a Hessian, or with what the recipe wants instead where it cannot be factored.

    Args:
        quantize: takes H [in, in].
        hessian: H [in, in].
        on_singular: `more_damping` adds 1 %, then 10 %, then all of the mean diagonal, on top of what the
            method adds by itself; `rtn` takes the identity, with which no column makes up for another.

    Returns:
        The result, and what was done, for the record: extra_damping, or rounded.

    Raises:
        SingularHessian: no try succeeded, or only one was wanted.
    """
    failure: SingularHessian | None = None
    for candidate, done in _candidates(hessian, on_singular):
        try:
            return quantize(candidate), done
        except SingularHessian as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _candidates(hessian: Tensor, on_singular: OnSingular) -> Iterator[tuple[Tensor, dict[str, float]]]:
    yield hessian, {}
    if on_singular == "more_damping":
        extra = FIRST_EXTRA_DAMPING
        while extra <= LAST_EXTRA_DAMPING:
            yield damped(hessian, extra), {"extra_damping": extra}
            extra *= 10
    elif on_singular == "rtn":
        yield torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device), {"rounded": 1.0}
