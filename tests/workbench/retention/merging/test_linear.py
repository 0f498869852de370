"""Linear merging is the straight line."""

from __future__ import annotations

import torch

from workbench.retention.merging import linear


def test_is_the_straight_line_with_exact_ends() -> None:
    base, trained = torch.randn(5, 7), 1e3 * torch.randn(5, 7)
    assert torch.equal(linear.merge(base, trained, 0.0), base)
    assert torch.equal(linear.merge(base, trained, 1.0), trained)
    torch.testing.assert_close(linear.merge(base, trained, 0.3), 0.7 * base + 0.3 * trained)
