"""Shares between the natural ones and even ones."""

from __future__ import annotations

import pytest

from workbench.data.curricula.temperature import weights

TOKENS = {"large": 9_000, "small": 1_000}


def test_one_keeps_natural_shares_and_infinity_makes_them_even() -> None:
    assert weights(TOKENS, 1) == pytest.approx({"large": 0.9, "small": 0.1})
    assert weights(TOKENS, 1e9) == pytest.approx({"large": 0.5, "small": 0.5})


def test_two_is_the_square_root() -> None:
    assert weights(TOKENS, 2) == pytest.approx({"large": 0.75, "small": 0.25})


def test_huge_sources_and_low_temperatures_do_not_overflow() -> None:
    assert weights({"large": 10**15, "small": 1}, 0.01) == {"large": 1.0, "small": 0.0}
