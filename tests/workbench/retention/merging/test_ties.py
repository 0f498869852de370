"""TIES on vectors small enough to do by hand."""

from __future__ import annotations

import torch

from workbench.retention.merging import ties


def test_trimming_keeps_the_largest() -> None:
    vector = torch.tensor([[0.1, -4.0], [3.0, -0.2]])
    assert torch.equal(ties.trim(vector, 0.5), torch.tensor([[0.0, -4.0], [3.0, 0.0]]))
    assert torch.equal(ties.trim(vector, 1.0), vector)
    assert ties.trim(vector, 0.01).count_nonzero() == 1


def test_one_vector_is_only_trimmed() -> None:
    base, trained = torch.randn(8, 8), torch.randn(8, 8)
    expected = base + 0.5 * ties.trim(trained - base, 0.25)
    torch.testing.assert_close(ties.merge(base, [trained], 0.5, 0.25), expected)


def test_the_larger_movement_elects_the_sign_and_those_that_agree_are_averaged() -> None:
    base = torch.ones(4)
    moves = torch.tensor([[2.0, 1.0, -1.0, 0.0], [4.0, -3.0, -1.0, 0.0], [-1.0, 1.0, 1.0, 0.0]])
    merged = ties.merge(base, list(base + moves), 1.0, 1.0)
    torch.testing.assert_close(merged - base, torch.tensor([3.0, -3.0, -1.0, 0.0]))
