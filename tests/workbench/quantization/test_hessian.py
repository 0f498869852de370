"""A Hessian is factored, or what the recipe wants is done and said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workbench.quantization.hessian import SingularHessian, damped, factored, upper_factor_of_inverse


def second_moment(tokens: int, size: int = 12) -> Tensor:
    x = torch.randn(tokens, size, dtype=torch.float64)
    return 2 / tokens * x.T @ x


@pytest.mark.parametrize("damping", [1e-3, 0.01, 1.0])
def test_the_factor_is_that_of_the_inverse(damping: float) -> None:
    H = second_moment(5)  # of rank 5
    U = upper_factor_of_inverse(H, damping)
    assert torch.equal(U, U.triu())
    expected = H + damping * H.diagonal().mean() * torch.eye(12)
    torch.testing.assert_close(torch.linalg.inv(U.T @ U), expected, rtol=1e-6, atol=1e-9)


def negative(share: float) -> Tensor:
    """A matrix of mean diagonal 1 whose least eigenvalue is -share."""
    values = torch.full((12,), (12 + share) / 11, dtype=torch.float64)
    values[0] = -share
    return values.diag()


def test_without_a_factor_it_says_what_to_do() -> None:
    with pytest.raises(SingularHessian, match=r"damping 0\.01 .* to 0\.1, .* on_singular: more_damping"):
        upper_factor_of_inverse(negative(0.5), 0.01)


@pytest.mark.parametrize(
    ("share", "extra"), [(0.001, None), (0.015, 0.01), (0.05, 0.1), (0.5, 1.0), (2.0, "none")]
)
def test_more_damping_is_the_least_of_three_that_helps(share: float, extra: float | str | None) -> None:
    H = negative(share)

    def quantize(candidate: Tensor) -> Tensor:
        return upper_factor_of_inverse(candidate, 0.01)

    if extra == "none":
        with pytest.raises(SingularHessian):
            factored(quantize, H, "more_damping")
        return
    U, done = factored(quantize, H, "more_damping")
    assert done == ({} if extra is None else {"extra_damping": pytest.approx(extra)})
    matrix = H if not isinstance(extra, float) else damped(H, extra)
    torch.testing.assert_close(U, quantize(matrix))


def test_rounding_sees_independent_inputs() -> None:
    H = negative(5.0)
    U, done = factored(lambda candidate: upper_factor_of_inverse(candidate, 0.01), H, "rtn")
    assert done == {"rounded": 1.0} and torch.equal(U, U.diagonal().diag())
    with pytest.raises(SingularHessian):
        factored(lambda candidate: upper_factor_of_inverse(candidate, 0.01), H, "error")
    assert factored(lambda candidate: float(candidate.trace()), H, "rtn") == (float(H.trace()), {})
