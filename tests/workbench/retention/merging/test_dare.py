"""DARE drops its share and keeps the mean."""

from __future__ import annotations

import torch

from workbench.retention.merging import dare


def test_drops_its_share_and_rescales_the_rest() -> None:
    base = torch.zeros(200, 200)
    merged = dare.merge(base, torch.ones(200, 200), 1.0, 0.75, torch.Generator().manual_seed(1))
    assert set(merged.unique().tolist()) == {0.0, 4.0}
    # Standard error of the share of 40,000 draws: 0.0022; four of them.
    assert abs((merged == 0).float().mean().item() - 0.75) < 0.009


def test_without_dropping_it_is_linear() -> None:
    base, trained = torch.randn(5, 5), torch.randn(5, 5)
    merged = dare.merge(base, trained, 0.3, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(merged, base.lerp(trained, 0.3))
