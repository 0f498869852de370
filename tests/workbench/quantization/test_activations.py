"""Rounded inputs: within half a step of each token's own grid, and outliers untouched."""

from __future__ import annotations

import pytest
import torch

from workbench.quantization.activations import Activations


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_token_has_a_grid_of_its_own(bits: int, dtype: torch.dtype) -> None:
    x = (torch.randn(2, 6, 40) * torch.logspace(-3, 3, 6)[:, None]).to(dtype)
    rounded = Activations(bits).round(x)
    assert rounded.dtype == dtype and rounded.shape == x.shape
    step = x.abs().amax(-1, keepdim=True).float() / (2 ** (bits - 1) - 1)
    codes = rounded.float() / step
    slack = 0.5 if dtype == torch.bfloat16 else 1e-4
    assert bool(((codes - codes.round()).abs() <= slack).all())
    assert bool(((rounded.float() - x.float()).abs() <= (0.5 + slack) * step).all())
    largest = x.abs().argmax(-1, keepdim=True)
    torch.testing.assert_close(rounded.gather(-1, largest), x.gather(-1, largest))


def test_tokens_do_not_depend_on_each_other() -> None:
    x = torch.randn(5, 16)
    together = Activations(4).round(x)
    assert all(
        torch.equal(Activations(4).round(row), rounded) for row, rounded in zip(x, together, strict=True)
    )


def test_columns_with_outliers_stay_and_do_not_widen_the_grid() -> None:
    x = torch.randn(7, 16).clamp(-3, 3)
    alone = Activations(8, threshold=6.0).round(x)
    assert torch.equal(alone, Activations(8).round(x))
    x[3, 5] = 60
    rounded = Activations(8, threshold=6.0).round(x)
    assert torch.equal(rounded[:, 5], x[:, 5])
    others = [column for column in range(16) if column != 5]
    assert torch.equal(rounded[:, others], Activations(8).round(x[:, others]))


def test_tokens_of_zeros_stay() -> None:
    assert torch.equal(Activations(8).round(torch.zeros(2, 4)), torch.zeros(2, 4))


@pytest.mark.parametrize("bits", [1, 0, 9, 16])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2 to 8"):
        Activations(bits)
