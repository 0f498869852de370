"""The adapted format is base plus update, takes the bits that it says, and nests any other format."""

from __future__ import annotations

import json

import pytest
import torch

from workbench.errors import ModelError, NumericsError
from workbench.quantization.formats import Weight, from_layout, layout_of
from workbench.quantization.formats.adapted import AdaptedWeight
from workbench.quantization.grid import Grid
from workbench.quantization.linear import QuantizedLinear
from workbench.quantization.methods import ir_qlora, rtn
from workbench.recipe.quantization import IrQlora, Nf4

SHAPE, RANK = (24, 64), 4


def bases() -> list[Weight]:
    W = torch.randn(SHAPE)
    return [ir_qlora.quantize(W, IrQlora(steps=2), Nf4()), rtn.quantize(W, Grid(3, 32, symmetric=False))]


def make(base: Weight) -> AdaptedWeight:
    return AdaptedWeight.of(base, torch.randn(RANK, SHAPE[1]), torch.randn(SHAPE[0], RANK), 0.25)


@pytest.mark.parametrize("base", bases())
def test_disk(base: Weight) -> None:
    weight = make(base)
    tensors = weight.tensors()
    assert weight.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    assert weight.stored_bits == base.stored_bits + 16 * RANK * sum(SHAPE)
    layout = json.loads(json.dumps(layout_of(weight)))
    assert layout == {"format": "adapted", "scaling": 0.25, "base": layout_of(base)}
    again = from_layout(layout, tensors, SHAPE)
    assert torch.equal(again.dequantize(), weight.dequantize())


@pytest.mark.parametrize("base", bases())
def test_a_linear_of_it_adds_the_update(base: Weight) -> None:
    weight, x = make(base), torch.randn(3, SHAPE[1])
    y = QuantizedLinear.from_weight(weight, SHAPE)(x)
    update = (x @ weight.A.float().T) @ weight.B.float().T
    torch.testing.assert_close(y, x @ base.dequantize().T + 0.25 * update, rtol=1e-4, atol=1e-4)


def test_an_update_of_another_matrix_is_refused() -> None:
    weight = make(bases()[0])
    tensors = weight.tensors() | {"lora_a": weight.A[:, 1:].contiguous()}
    with pytest.raises(ModelError, match="lora_a"):
        from_layout(layout_of(weight), tensors, SHAPE)


@pytest.mark.parametrize("value", [torch.nan, 1e6])
def test_updates_beyond_16_bits_are_refused(value: float) -> None:
    A, B = torch.randn(RANK, SHAPE[1]), torch.randn(SHAPE[0], RANK)
    B[3, 1] = value
    with pytest.raises(NumericsError, match="beyond float16"):
        AdaptedWeight.of(bases()[0], A, B, 1.0)
