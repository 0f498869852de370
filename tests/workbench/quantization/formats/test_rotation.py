"""A seed gives back one orthogonal matrix, of any size, which undoes itself."""

from __future__ import annotations

import pytest
import torch

from workbench.quantization.formats.rotation import Transform, hadamard, rotation

SIZES = [1, 2, 7, 12, 43, 64, 128, 172, 352]


@pytest.mark.parametrize("transform", ["kronecker", "hadamard"])
@pytest.mark.parametrize("size", SIZES)
def test_is_orthogonal_and_undone(transform: Transform, size: int) -> None:
    turn = rotation(size, transform, 3, "in")
    V = turn.apply(torch.eye(size, dtype=torch.float64)).T  # x V^T for every unit vector
    torch.testing.assert_close(V @ V.T, torch.eye(size, dtype=torch.float64), atol=1e-10, rtol=0)
    x = torch.randn(2, 5, size, dtype=torch.float64)
    torch.testing.assert_close(turn.apply(x), x @ V.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(turn.undo(x), x @ V, atol=1e-10, rtol=0)


@pytest.mark.parametrize("transform", ["kronecker", "hadamard"])
def test_seeds_and_sides_differ_and_repeat(transform: Transform) -> None:
    x = torch.randn(48)
    there = rotation(48, transform, 1, "in").apply(x)
    assert torch.equal(rotation(48, transform, 1, "in").apply(x), there)
    for seed, side in ((2, "in"), (1, "out")):
        other = rotation(48, transform, seed, side).apply(x)  # type: ignore[arg-type]
        assert (other - there).norm() > 0.1 * x.norm()


def test_what_a_seed_means_never_changes() -> None:
    """Saved models depend on it: values of numpy's RandomState([7, 1]), whose stream is frozen."""
    assert rotation(8, "hadamard", 7, "in").signs.tolist() == [-1, 1, -1, -1, 1, -1, -1, -1]
    assert rotation(9, "kronecker", 7, "in").before.tolist() == [4, 1, 8, 6, 3, 7, 2, 0, 5]
    expected = [-0.2755176620572, -0.7585197346123, 0.5905402866004]
    assert rotation(9, "kronecker", 7, "in").left[0].tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 32])
def test_hadamard_is_that_of_sylvester(size: int) -> None:
    H = torch.ones(1, 1, dtype=torch.float64)
    while len(H) < size:
        H = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), H)
    x = torch.randn(3, size, dtype=torch.float64)
    torch.testing.assert_close(hadamard(x), x @ H / size**0.5, atol=1e-12, rtol=0)


@pytest.mark.parametrize("transform", ["kronecker", "hadamard"])
def test_one_large_entry_is_spread_over_all(transform: Transform) -> None:
    x = torch.zeros(256, dtype=torch.float64)
    x[17] = 1
    assert rotation(256, transform, 0, "in").apply(x).abs().max() < 0.5
