"""Grids are those of the papers, reach every weight of their group, and refuse what they cannot hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.errors import ModelError, NumericsError
from workbench.quantization.grid import Grid, check_group_size, decode, encode, fit


def approximate(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    scale, zero_point = fit(weight, grid)
    s, z = scale[..., None], zero_point[..., None]
    return decode(encode(weight, s, z, grid), s, z), scale, zero_point


@pytest.mark.parametrize("bits", range(2, 9))
def test_scales_are_those_of_the_papers(bits: int) -> None:
    weight = torch.randn(50, 32)
    low, high = weight.amin(-1), weight.amax(-1)
    scale, zero_point = fit(weight, Grid(bits, 32, symmetric=False))
    torch.testing.assert_close(scale.float(), (high - low) / (2**bits - 1), rtol=2**-10, atol=0)
    torch.testing.assert_close(zero_point, (-low / scale.float()).round(), rtol=0, atol=0)
    scale, zero_point = fit(weight, Grid(bits, 32, symmetric=True))
    reach = weight.abs().amax(-1)
    torch.testing.assert_close(scale.float(), 2 * reach / (2**bits - 1), rtol=2**-10, atol=0)
    assert (zero_point == 2 ** (bits - 1)).all()


@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    exponent=st.integers(-7, 3),
    shift=st.floats(-3, 3),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_no_weight_is_further_than_half_a_step(
    bits: int, symmetric: bool, exponent: int, shift: float, seed: int
) -> None:
    """Also where float16 scales are coarse: tiny groups, and groups to one side of 0."""
    weight = (torch.randn(8, 32, generator=torch.Generator().manual_seed(seed)) + shift) * 10.0**exponent
    approximation, scale, zero_point = approximate(weight, Grid(bits, 32, symmetric))
    bound = scale.float()[:, None] / 2
    assert ((weight - approximation).abs() <= bound * (1 + 1e-4)).all()
    assert (zero_point == zero_point.round()).all() and (zero_point >= 0).all()
    assert (zero_point <= 2**bits - 1).all()


def test_asymmetric_grids_hold_zero_exactly() -> None:
    weight = torch.rand(4, 32) + 5
    weight[:, 0] = 0
    approximation, _, _ = approximate(weight, Grid(4, 32, symmetric=False))
    assert (approximation[:, 0] == 0).all()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_stay_zeros(bits: int, symmetric: bool) -> None:
    approximation, _, _ = approximate(torch.zeros(3, 16), Grid(bits, 16, symmetric))
    assert (approximation == 0).all()


def test_one_bit_symmetric_is_the_best_pair_of_opposite_levels() -> None:
    weight = torch.randn(20, 64)
    approximation, _, _ = approximate(weight, Grid(1, 64, symmetric=True))
    torch.testing.assert_close(
        approximation.abs(), weight.abs().mean(-1, keepdim=True).expand(20, 64), rtol=1e-3, atol=0
    )
    assert torch.equal(approximation.sign(), weight.sign())
    error = (weight - approximation).square().sum(-1)
    for factor in (0.9, 1.1):
        assert ((weight - factor * approximation).square().sum(-1) > error).all()


def test_one_bit_asymmetric_keeps_the_longer_side() -> None:
    weight = torch.tensor([[-1.0, -0.9, 0.1, 0.4], [-0.2, 0.1, 0.7, 0.8]])
    approximation, _, _ = approximate(weight, Grid(1, 4, symmetric=False))
    expected = torch.tensor([[-1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.8, 0.8]])
    torch.testing.assert_close(approximation, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_grid_is_at_least_as_good(bits: int, symmetric: bool) -> None:
    weight = torch.randn(30, 64)
    plain, _, _ = approximate(weight, Grid(bits, 64, symmetric))
    shrunk, _, _ = approximate(weight, Grid(bits, 64, symmetric, mse=True))
    before, after = ((weight - w).abs().pow(2.4).sum(-1) for w in (plain, shrunk))
    assert (after <= before).all()
    if bits == 2:
        assert after.mean() < 0.8 * before.mean()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e7])
def test_weights_that_no_grid_holds_are_refused(value: float) -> None:
    weight = torch.randn(4, 32)
    weight[2, 3] = value
    with pytest.raises(NumericsError, match="NaN, infinite or beyond"):
        fit(weight, Grid(4, 32, symmetric=False))


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_outside_one_to_eight_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="1 to 8 bits"):
        Grid(bits, 32, symmetric=True)


def test_group_size_that_does_not_divide_names_every_linear_and_what_divides() -> None:
    shapes = {"a.q_proj": (64, 64), "a.down_proj": (64, 172), "b.down_proj": (64, 172)}
    with pytest.raises(ModelError) as caught:
        check_group_size(shapes, 32)
    message = str(caught.value)
    assert "2 of 3 linears" in message and "are 2, 4 or channel" in message
    assert "a.down_proj: in_features 172" in message and "b.down_proj: in_features 172" in message
    assert "q_proj" not in message
    with pytest.raises(ModelError, match="sizes that divide all are channel"):
        check_group_size({"a": (4, 9), "b": (4, 16)}, 3)
    for fitting in (4, 2, "channel"):
        check_group_size(shapes, fitting)  # type: ignore[arg-type]
