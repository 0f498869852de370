"""Binarization in closed form is the best there is for its mean, by trying all signs."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from workbench.errors import NumericsError
from workbench.quantization.methods.binarization import binarize


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_is_optimal_by_brute_force(count: int) -> None:
    """min over B in {-1, 1}^n and alpha of ||w - mu - alpha B||^2 with mu the mean of the set."""
    W = torch.randn(4, 9)
    members = torch.zeros(1, 9, dtype=torch.bool)
    members[0, torch.randperm(9)[:count]] = True
    values = binarize(W, members).values
    for row in range(4):
        w = W[row, members[0]].double()
        centred = w - w.mean()
        signs = torch.tensor([*product((-1.0, 1.0), repeat=count)], dtype=torch.float64)  # [2^n, n]
        alpha = (signs @ centred / count)[:, None]  # the best for each B
        best = (centred - alpha * signs).square().sum(1).min()
        got = (w - values[row, members[0]].double()).square().sum()
        assert float(got) == pytest.approx(float(best), rel=3e-3, abs=1e-5)  # numbers are float16


def test_only_members_count() -> None:
    W, members = torch.randn(3, 16), torch.rand(3, 16) > 0.5
    elsewhere = torch.where(members, W, 100.0)
    one, other = binarize(W, members), binarize(elsewhere, members)
    assert torch.equal(one.offset, other.offset) and torch.equal(one.step, other.step)


def test_published_statistics_count_the_others_as_zeros() -> None:
    W, members = torch.rand(1, 4) + 1, torch.tensor([[True, True, False, False]])
    mean = float(W[0, :2].sum() / 4)
    alpha = float(((W[0, :2] - mean).abs().sum() + 2 * mean) / 4)
    got = binarize(W, members, count_all=True)
    assert float(got.offset) == pytest.approx(mean - alpha, abs=2e-3)
    assert float(got.step) == pytest.approx(2 * alpha, abs=2e-3)


def test_an_empty_set_is_zero() -> None:
    got = binarize(torch.randn(2, 8), torch.zeros(1, 8, dtype=torch.bool))
    assert (got.offset == 0).all() and (got.step == 0).all()


def test_beyond_float16_is_an_error() -> None:
    with pytest.raises(NumericsError, match="float16"):
        binarize(torch.full((1, 4), 1e6), torch.ones(1, 4, dtype=torch.bool))
