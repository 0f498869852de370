"""The loss against its definition."""

from __future__ import annotations

import pytest
import torch

from workbench.training import objective


@pytest.mark.parametrize("at_once", [10**9, 25], ids=["whole", "in pieces"])
def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(objective, "LOGITS_AT_ONCE", at_once)
    logits = torch.randn(13, 11, dtype=torch.float64).float().requires_grad_()
    labels = torch.randint(0, 11, (13,))
    labels[::3] = objective.NO_TARGET
    expected = torch.zeros(())
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label != objective.NO_TARGET:
            expected = expected + row.exp().sum().log() - row[label]
    loss = objective.summed_cross_entropy(logits, labels)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


def test_without_targets_it_is_zero() -> None:
    loss = objective.summed_cross_entropy(torch.randn(4, 5), torch.full((4,), objective.NO_TARGET))
    assert loss.item() == 0.0


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits, labels = torch.randn(2000, 8).bfloat16(), torch.randint(0, 8, (2000,))
    loss = objective.summed_cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, objective.summed_cross_entropy(logits.float(), labels))
