"""The rotated format decodes as its formula says, and costs its codes and little else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from workbench.errors import ModelError
from workbench.quantization.formats.rotated import RotatedWeight, stored_bits
from workbench.quantization.formats.rotation import rotation

OUT, IN = 12, 43


def example(bits: int = 3, balanced: bool = True, transform: Any = "kronecker") -> RotatedWeight:
    codes = torch.randint(0, 2**bits, (OUT, IN), dtype=torch.uint8)
    d = (torch.rand(IN) + 0.5).half() if balanced else None
    return RotatedWeight(codes, torch.tensor(1.7), d, 11, transform, bits)


@pytest.mark.parametrize("transform", ["kronecker", "hadamard"])
@pytest.mark.parametrize("balanced", [True, False])
def test_decodes_as_drawn(transform: Any, balanced: bool) -> None:
    weight = example(3, balanced, transform)
    U = rotation(OUT, transform, 11, "out").apply(torch.eye(OUT, dtype=torch.float64)).T
    V = rotation(IN, transform, 11, "in").apply(torch.eye(IN, dtype=torch.float64)).T
    turned = 1.7 * (2 * weight.codes.double() / 7 - 1)
    expected = U.T @ turned @ V
    if weight.balance is not None:
        expected = expected / weight.balance.double()
    torch.testing.assert_close(weight.dequantize().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("balanced", [True, False])
def test_disk_holds_the_bits_that_are_counted(bits: int, balanced: bool) -> None:
    weight = example(bits, balanced)
    tensors = load(save(weight.tensors()))
    assert weight.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    again = RotatedWeight.from_tensors(tensors, (OUT, IN), 11, "kronecker", bits)
    assert torch.equal(again.dequantize(), weight.dequantize())


def test_real_bits_of_a_large_matrix() -> None:
    assert stored_bits(4096, 4096, 2, balanced=True) / 4096**2 == pytest.approx(2.004, abs=1e-4)


def test_tensors_of_another_matrix_are_refused() -> None:
    with pytest.raises(ModelError, match=r"(codes|balance): shape"):
        RotatedWeight.from_tensors(example().tensors(), (OUT, IN + 32), 11, "kronecker", 3)
