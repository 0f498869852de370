"""The mixed format puts groups of every width back in their places, and counts what lies on disk."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from workbench.errors import ModelError
from workbench.quantization.formats.mixed import MixedWeight, columns_of
from workbench.quantization.grid import Grid
from workbench.quantization.methods import rtn

OUT, IN, GROUP = 5, 48, 8
WIDTHS = torch.tensor([2, 1, 3, 2, 3, 1], dtype=torch.uint8)


def example() -> tuple[torch.Tensor, MixedWeight]:
    weight = torch.randn(OUT, IN)
    parts = {
        bits: rtn.quantize(weight[:, columns_of(WIDTHS, bits, IN)], Grid(bits, GROUP, symmetric=bits == 1))
        for bits in (1, 2, 3)
    }
    return weight, MixedWeight(WIDTHS, parts)


def test_every_group_is_rounded_to_its_width() -> None:
    weight, mixed = example()
    decoded = mixed.dequantize()
    for group, bits in enumerate(WIDTHS.tolist()):
        columns = slice(group * GROUP, (group + 1) * GROUP)
        alone = rtn.quantize(weight[:, columns], Grid(bits, GROUP, symmetric=bits == 1))
        assert torch.equal(decoded[:, columns], alone.dequantize())


def test_disk_holds_the_bits_that_are_counted() -> None:
    _, mixed = example()
    tensors = load(save(mixed.tensors()))
    assert mixed.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    assert torch.equal(MixedWeight.from_tensors(tensors, (OUT, IN)).dequantize(), mixed.dequantize())


def test_tensors_of_another_matrix_are_refused() -> None:
    with pytest.raises(ModelError, match=r"codes.*shape"):
        MixedWeight.from_tensors(example()[1].tensors(), (OUT, 6 * 64))
