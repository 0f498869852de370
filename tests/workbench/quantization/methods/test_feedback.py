"""The shared steps of methods with error feedback."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import NumericsError
from workbench.quantization.hessian import upper_factor_of_inverse
from workbench.quantization.methods.feedback import compensated, saliency, without_dead_columns

IN = 24


def hessian() -> torch.Tensor:
    X = torch.randn(100, IN, dtype=torch.float64) @ torch.randn(IN, IN, dtype=torch.float64)
    return X.T @ X / 100


def test_saliency_is_the_cost_of_leaving_a_weight_out() -> None:
    """Later weights may move: the least of delta^T H delta with delta_i = -w, earlier weights fixed."""
    H, w = hessian(), torch.randn(1, IN, dtype=torch.float64)
    got = saliency(w, upper_factor_of_inverse(H, 1e-9), 0, IN)
    for i in (0, 7, IN - 1):
        later = H[i + 1 :, i + 1 :]
        schur = H[i, i] - H[i, i + 1 :] @ torch.linalg.solve(later, H[i + 1 :, i]) if i + 1 < IN else H[i, i]
        assert float(got[0, i]) == pytest.approx(float(w[0, i] ** 2 * schur), rel=1e-4)


def test_rest_makes_up_for_errors_as_well_as_it_can() -> None:
    """After columns are rounded, the least-squares choice of the rest is what stands there."""
    H, W = hessian(), torch.randn(3, IN, dtype=torch.float64)
    before, U = W.clone(), upper_factor_of_inverse(H, 1e-9)
    Q = compensated(W, U, 0, 8, lambda i, w: w.round())
    assert torch.equal(Q, Q.round())
    delta = Q - before[:, :8]
    best = before[:, 8:] - delta @ torch.linalg.solve(H[8:, 8:], H[8:, :8]).T
    torch.testing.assert_close(W[:, 8:], best, atol=1e-5, rtol=1e-5)


def test_dead_columns_become_harmless_and_arguments_stay() -> None:
    weight, H = torch.randn(3, IN), hessian()
    H[:, 4] = H[4] = 0
    before = weight.clone(), H.clone()
    W, ready, dead = without_dead_columns(weight, H)
    assert dead.nonzero().tolist() == [[4]]
    assert (W[:, 4] == 0).all() and ready[4, 4] == 1
    assert torch.equal(weight, before[0]) and torch.equal(H, before[1])


def test_a_weight_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(NumericsError, match="NaN or infinite"):
        without_dead_columns(torch.full((2, IN), torch.nan), hessian())
