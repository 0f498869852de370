"""Spherical merging keeps to the arc, and to the line where there is none."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.retention.merging import slerp


def test_walks_the_arc_at_even_speed() -> None:
    base, trained = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    for weight in (0.0, 0.25, 0.5, 1.0):
        angle = weight * math.pi / 2
        expected = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle)])
        torch.testing.assert_close(slerp.merge(base, trained, weight), expected)


def test_ends_are_exact() -> None:
    base, trained = torch.randn(4, 6), torch.randn(4, 6)
    assert torch.equal(slerp.merge(base, trained, 0.0), base)
    assert torch.equal(slerp.merge(base, trained, 1.0), trained)


@pytest.mark.parametrize("factor", [0.0, 3.0, -1.0], ids=["zero", "parallel", "opposite"])
def test_is_the_line_where_there_is_no_arc(factor: float) -> None:
    base = torch.randn(3, 5)
    torch.testing.assert_close(slerp.merge(base, factor * base, 0.25), (0.75 + 0.25 * factor) * base)
