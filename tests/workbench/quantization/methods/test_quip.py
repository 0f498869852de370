"""QuIP: LDLQ is GPTQ, greedy passes never hurt, rotation hides outliers and is undone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.quantization.grid import Grid
from workbench.quantization.hessian import SingularHessian
from workbench.quantization.methods import gptq, quip, rtn
from workbench.recipe.quantization import Gptq, Quip

OUT, IN = 24, 96
OPTIONS: list[dict[str, Any]] = [
    {},
    {"transform": "hadamard"},
    {"rounding": "ldlq-rg"},
    {"transform": "hadamard", "rounding": "ldlq-rg"},
    {"rescale": False},
]


def correlated(tokens: int = 400, columns: int = IN) -> tuple[Tensor, Tensor]:
    """Inputs X [tokens, in] with strong correlations and unequal sizes, and their H = 2/N X^T X."""
    X = torch.randn(tokens, 12) @ torch.randn(12, columns) + 0.3 * torch.randn(tokens, columns)
    X = X * torch.logspace(-1, 1, columns)[torch.randperm(columns)]
    return X, 2 / tokens * X.T @ X


def proxy_loss(error: Tensor, H: Tensor) -> float:
    return float((error @ H * error).sum())


def test_ldlq_is_gptq_where_nothing_is_clamped() -> None:
    """GPTQ begins with the first column and LDLQ with the last, so one of them sees the columns reversed."""
    columns, damping = 32, 0.01
    _, H = correlated(columns=columns)
    H, W = H.double(), torch.randn(OUT, columns, dtype=torch.float64)
    W[:, 0] = 12.0  # first for GPTQ; makes its grid wide enough for all others
    theirs = gptq.quantize(W, H, Gptq(damping=damping), Grid(8, "channel", symmetric=True))
    assert int(theirs.codes[:, 1:].max()) < 255 and int(theirs.codes[:, 1:].min()) > 0

    step = theirs.scale.double()  # [out, 1]
    reverse = H.flip(0, 1) + damping * H.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    Q = quip.ldlq(W.flip(1) / step, quip.unit_lower_factor(reverse), torch.inf)
    assert torch.equal(Q.flip(1), theirs.codes.double() - 128)


def test_factor_is_unit_lower_and_gives_a_diagonal() -> None:
    X = correlated()[0].double()
    H = X.T @ X / len(X) + 0.1 * torch.eye(IN, dtype=torch.float64)
    L = quip.unit_lower_factor(H)
    assert torch.equal(L, L.tril()) and (L.diagonal() == 1).all()
    inverse = torch.linalg.inv(L)
    D = inverse @ H @ inverse.T
    torch.testing.assert_close(D, torch.diag(D.diagonal()), atol=1e-8, rtol=0)


def test_ldlq_with_a_diagonal_hessian_is_rounding() -> None:
    W = 4 * torch.randn(OUT, IN)
    assert torch.equal(quip.ldlq(W, torch.eye(IN), 3), W.round().clamp(0, 3))


def test_lazy_updates_change_nothing() -> None:
    """Against the formula, one column after the other, over more columns than a lazy block has."""
    n = quip.LAZY_COLUMNS + 40
    W, L = torch.randn(4, n, dtype=torch.float64), torch.randn(n, n, dtype=torch.float64).tril(-1) / n**0.5
    W, L, Q = 2 * W, L + torch.eye(n, dtype=torch.float64), torch.zeros_like(W)
    for i in reversed(range(n)):
        Q[:, i] = (W[:, i] + (W - Q)[:, i + 1 :] @ L[i + 1 :, i]).round().clamp(0, 7)
    assert torch.equal(quip.ldlq(W, L, 7), Q)


def test_greedy_passes_lower_the_loss_until_nothing_moves() -> None:
    _, H = correlated(columns=200)
    H, W = H.double() + torch.eye(200, dtype=torch.float64), 3 * torch.rand(8, 200, dtype=torch.float64)
    Q = W.round().clamp(0, 3)
    losses = [proxy_loss(quip.greedy(Q, W, H, 3, passes) - W, H) for passes in (0, 1, 2, 5)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
    settled = quip.greedy(Q, W, H, 3, 100)
    for i in (0, 57, 199):  # no other code of a single column is better
        for code in range(4):
            other = settled.clone()
            other[:, i] = code
            rows = [((M - W) @ H * (M - W)).sum(1) for M in (settled, other)]
            assert (rows[0] <= rows[1] + 1e-9).all()


@pytest.mark.parametrize("transform", ["kronecker", "hadamard"])
def test_rotation_hides_outliers(transform: Any) -> None:
    W, H = torch.randn(64, 128), torch.eye(128)
    W[5, 7], W[60, 3] = 60.0, -50.0
    _, said = quip.quantize(W, H, Quip(transform=transform), Grid(4, "channel", symmetric=True), 0)
    assert said["incoherence_before"] > 30
    assert said["incoherence"] < 10


@pytest.mark.parametrize("options", OPTIONS[:-1])  # without the balance it needs luck
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_is_not_behind_gptq_nor_rounding_per_channel(options: dict[str, Any], bits: int) -> None:
    X, H = correlated()
    W, grid = torch.randn(OUT, IN) * torch.randn(OUT, 1).exp(), Grid(bits, "channel", symmetric=False)
    W[torch.rand(OUT, IN) < 0.01] *= 8  # outliers
    ours, theirs, rounded = (
        float(((W - quantized.dequantize()) @ X.T).norm())
        for quantized in (
            quip.quantize(W, H, Quip(**options), grid, 0)[0],
            gptq.quantize(W, H, Gptq(), grid),
            rtn.quantize(W, grid),
        )
    )
    assert ours < theirs < rounded


@pytest.mark.parametrize("options", OPTIONS)
def test_eight_bits_give_the_weights_back(options: dict[str, Any]) -> None:
    _, H = correlated()
    W = torch.randn(OUT, IN)
    quantized, _ = quip.quantize(W, H, Quip(**options), Grid(8, "channel", symmetric=True), 0)
    assert ((quantized.dequantize() - W) @ torch.linalg.cholesky(H.double()).float()).norm() < 0.01 * (
        W @ torch.linalg.cholesky(H.double()).float()
    ).norm()


def test_balance_makes_channels_equal() -> None:
    """After it H_ii = |W_i|^2 up to one factor for all i, and nothing can lower tr(H) |W|^2 further."""
    _, H = correlated()
    W, H = torch.randn(OUT, IN).double(), H.double()
    d = quip.balance(W, H).double()
    ratio = (H.diagonal() / d**2) / (W * d).square().sum(0)
    torch.testing.assert_close(ratio, ratio.mean().expand(IN), rtol=1e-2, atol=0)

    def bound(d: Tensor) -> float:
        return float((H.diagonal() / d**2).sum() * (W * d).square().sum())

    for _ in range(5):
        assert bound(d) <= 1.001 * bound(d * torch.rand(IN).double().add(0.5))


def test_dead_columns_and_a_matrix_of_zeros_harm_nothing() -> None:
    X, _ = correlated()
    X[:, [3, 50]] = 0
    W, grid = torch.randn(OUT, IN), Grid(4, "channel", symmetric=True)
    W[:, 3] = 100.0  # would spoil the grid
    quantized = quip.quantize(W, X.T @ X, Quip(), grid, 0)[0].dequantize()
    assert ((W - quantized) @ X.T).norm() < 0.1 * (W @ X.T).norm()
    zeros, _ = quip.quantize(torch.zeros(OUT, IN), X.T @ X, Quip(), grid, 0)
    assert torch.isfinite(zeros.dequantize()).all()


def test_scale_of_the_hessian_does_not_matter_and_arguments_stay() -> None:
    _, H = correlated()
    W, grid = torch.randn(OUT, IN), Grid(3, "channel", symmetric=True)
    before = W.clone(), H.clone()
    one, other = (quip.quantize(W, factor * H, Quip(), grid, 0)[0].codes for factor in (1, 2.0**20))
    assert torch.equal(one, other)
    assert torch.equal(W, before[0]) and torch.equal(H, before[1])


def test_seed_decides() -> None:
    _, H = correlated()
    W, grid = torch.randn(OUT, IN), Grid(3, "channel", symmetric=True)
    one, again, other = (quip.quantize(W, H, Quip(), grid, seed)[0].codes for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_hessian_that_cannot_be_factored_is_an_error_with_the_remedy() -> None:
    H = torch.eye(IN)
    H[0, 1] = H[1, 0] = 5  # not a second moment of anything
    with pytest.raises(SingularHessian, match=r"raise quip\.damping"):
        quip.quantize(torch.randn(OUT, IN), H, Quip(), Grid(4, "channel", symmetric=True), 0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_gives_finite_weights(bits: int) -> None:
    _, H = correlated(columns=43)
    quantized, _ = quip.quantize(torch.randn(7, 43), H, Quip(), Grid(bits, "channel", symmetric=True), 0)
    assert int(quantized.codes.max()) <= 2**bits - 1
    assert torch.isfinite(quantized.dequantize()).all()
