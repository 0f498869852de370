"""GPTQ: what it must equal, and what it must never be worse than."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.grid import Grid
from workbench.quantization.methods import gptq, rtn
from workbench.recipe.quantization import Gptq

OUT, IN = 24, 96
OPTIONS: list[dict[str, Any]] = [
    {},
    {"act_order": True},
    {"static_groups": True},
    {"act_order": True, "static_groups": True},
    {"block_size": 40},
]


def correlated(tokens: int = 400, columns: int = IN) -> tuple[Tensor, Tensor]:
    """Inputs X [tokens, in] with strong correlations and unequal sizes, and their H = 2/N X^T X."""
    X = torch.randn(tokens, 12) @ torch.randn(12, columns) + 0.3 * torch.randn(tokens, columns)
    X = X * torch.logspace(-1, 1, columns)[torch.randperm(columns)]
    return X, 2 / tokens * X.T @ X


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [16, 48, "channel"])
def test_diagonal_hessian_makes_it_rounding(
    options: dict[str, Any], symmetric: bool, group_size: Any
) -> None:
    """No column can make up for another, so what is left is the nearest level."""
    weight, grid = torch.randn(OUT, IN), Grid(3, group_size, symmetric)
    H = torch.diag(torch.rand(IN) + 0.1)
    if options == {"act_order": True} and group_size != "channel":
        H = torch.diag(torch.linspace(2, 1, IN))  # columns in order already, so the groups are RTN's
    expected, quantized = rtn.quantize(weight, grid), gptq.quantize(weight, H, Gptq(**options), grid)
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(quantized.dequantize(), expected.dequantize())


def ldlq(weight: Tensor, H: Tensor, step: Tensor) -> Tensor:
    """LDLQ without clamping (Chee et al., arXiv 2307.13304, section 3), first column first.

    H = A^T D A with unit lower A, found by elimination from the last variable; column i is rounded
    after it has received the errors of the columns before it, each times A's entry.
    """
    n = len(H)
    rest, A = H.clone(), torch.eye(n, dtype=H.dtype)
    for k in reversed(range(n)):
        A[k, :k] = rest[k, :k] / rest[k, k]
        rest[:k, :k] -= torch.outer(rest[:k, k], rest[k, :k]) / rest[k, k]
    result = torch.zeros_like(weight)
    for i in range(n):
        feedback = (weight[:, :i] - result[:, :i]) @ A[i, :i]
        result[:, i] = step * ((weight[:, i] + feedback) / step).round()
    return result


@pytest.mark.parametrize("block_size", [7, 32, 128])
def test_equals_ldlq_where_nothing_is_clamped(block_size: int) -> None:
    _, H = correlated(columns=32)
    H, damping = H.double(), 0.01
    weight = torch.randn(OUT, 32, dtype=torch.float64)
    weight[:, 0] = 12.0  # comes first, receives no feedback, and makes the grid wide enough for the others
    quantized = gptq.quantize(
        weight, H, Gptq(block_size=block_size, damping=damping), Grid(8, "channel", symmetric=True)
    )
    assert int(quantized.codes[:, 1:].max()) < 255 and int(quantized.codes[:, 1:].min()) > 0
    damped = H + damping * H.diagonal().mean() * torch.eye(32, dtype=torch.float64)
    step = quantized.scale[:, 0].double()
    got = step[:, None] * (quantized.codes.double() - 128)
    expected = ldlq(weight, damped, step)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_beats_rounding_on_correlated_inputs(options: dict[str, Any], bits: int, symmetric: bool) -> None:
    X, H = correlated()
    weight, grid = torch.randn(OUT, IN), Grid(bits, 32, symmetric)
    errors = [
        ((weight - quantized.dequantize()) @ X.T).norm()
        for quantized in (gptq.quantize(weight, H, Gptq(**options), grid), rtn.quantize(weight, grid))
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("options", OPTIONS)
def test_permuting_the_inputs_only_permutes_the_weights(options: dict[str, Any]) -> None:
    """Per channel, act_order makes the result independent of the order in which the columns come."""
    _, H = correlated()
    weight, order, grid = torch.randn(OUT, IN), torch.randperm(IN), Grid(4, "channel", symmetric=True)
    cfg = Gptq(**{**options, "act_order": True})
    there = gptq.quantize(weight, H, cfg, grid).dequantize()[:, order]
    back = gptq.quantize(weight[:, order], H[order][:, order], cfg, grid).dequantize()
    torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-5)


def test_g_idx_is_stored_only_where_groups_are_scattered() -> None:
    _, H = correlated()
    weight, grid = torch.randn(OUT, IN), Grid(4, 16, symmetric=True)
    scattered = gptq.quantize(weight, H, Gptq(act_order=True), grid)
    assert scattered.g_idx is not None
    assert scattered.g_idx.bincount().tolist() == [16] * 6
    first = H.diagonal().argsort(descending=True)[:16]
    assert (scattered.g_idx[first] == 0).all()  # the largest inputs come first and share the first grid
    assert gptq.quantize(weight, H, Gptq(), grid).g_idx is None
    assert gptq.quantize(weight, H, Gptq(act_order=True, static_groups=True), grid).g_idx is None
    assert gptq.quantize(weight, H, Gptq(act_order=True), Grid(4, "channel", symmetric=True)).g_idx is None


def test_static_groups_have_the_grids_of_rounding() -> None:
    _, H = correlated()
    weight, grid = torch.randn(OUT, IN), Grid(3, 16, symmetric=False)
    quantized = gptq.quantize(weight, H, Gptq(act_order=True, static_groups=True), grid)
    expected = rtn.quantize(weight, grid)
    assert torch.equal(quantized.scale, expected.scale)
    assert quantized.zero_point is not None and expected.zero_point is not None
    assert torch.equal(quantized.zero_point, expected.zero_point)


@pytest.mark.parametrize("group_size", [16, 48, "channel"])
def test_lazy_updates_change_nothing(group_size: Any) -> None:
    """Blocks of columns are bookkeeping: one column at a time gives the same."""
    _, H = correlated()
    weight, grid = torch.randn(OUT, IN, dtype=torch.float64), Grid(3, group_size, symmetric=False)
    one_by_one = gptq.quantize(weight, H, Gptq(block_size=1), grid)
    for block_size in (7, 20, 32, 128):
        lazy = gptq.quantize(weight, H, Gptq(block_size=block_size), grid)
        assert torch.equal(lazy.codes, one_by_one.codes)
        assert torch.equal(lazy.scale, one_by_one.scale)


def test_stacked_matrices_are_quantized_as_if_alone() -> None:
    _, H = correlated()
    a, b, grid = torch.randn(8, IN), 3 * torch.randn(5, IN), Grid(4, 32, symmetric=True)
    stacked = gptq.quantize(torch.cat([a, b]), H, Gptq(), grid).dequantize()
    torch.testing.assert_close(
        stacked[:8], gptq.quantize(a, H, Gptq(), grid).dequantize(), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        stacked[8:], gptq.quantize(b, H, Gptq(), grid).dequantize(), rtol=1e-5, atol=1e-5
    )


def test_dead_columns_are_zeroed_and_harm_nothing() -> None:
    X, _ = correlated()
    X[:, [3, 50]] = 0
    weight, grid = torch.randn(OUT, IN), Grid(4, 32, symmetric=True)
    weight[:, 3] = 100.0  # would spoil the grid of its group
    quantized = gptq.quantize(weight, X.T @ X, Gptq(), grid).dequantize()
    assert (quantized[:, [3, 50]] == 0).all()
    assert ((weight - quantized) @ X.T).norm() < 0.2 * (weight @ X.T).norm()


def test_scale_of_the_hessian_does_not_matter() -> None:
    _, H = correlated()
    weight, grid = torch.randn(OUT, IN), Grid(4, 32, symmetric=True)
    one, other = (gptq.quantize(weight, factor * H, Gptq(), grid).codes for factor in (1, 2.0**20))
    assert torch.equal(one, other)


def test_arguments_are_left_alone() -> None:
    _, H = correlated()
    weight = torch.randn(OUT, IN)
    before = weight.clone(), H.clone()
    gptq.quantize(weight, H, Gptq(), Grid(2, 32, symmetric=True))
    assert torch.equal(weight, before[0]) and torch.equal(H, before[1])


def test_hessian_that_cannot_be_factored_is_an_error_with_the_remedy() -> None:
    H = torch.ones(IN, IN) - 2 * torch.eye(IN)  # not a second moment of anything
    H.fill_diagonal_(1)
    H[0, 1] = H[1, 0] = 5
    with pytest.raises(NumericsError, match=r"damping 0\.01 .* raise the method's damping"):
        gptq.quantize(torch.randn(OUT, IN), H, Gptq(), Grid(4, 32, symmetric=True))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_width_gives_finite_weights(bits: int, symmetric: bool) -> None:
    _, H = correlated()
    quantized = gptq.quantize(
        torch.randn(OUT, IN), H, Gptq(act_order=True), Grid(bits, 16, symmetric, mse=True)
    )
    assert int(quantized.codes.max()) <= 2**bits - 1
    assert torch.isfinite(quantized.dequantize()).all()
