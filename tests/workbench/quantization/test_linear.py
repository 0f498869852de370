"""A quantized linear computes with the weight of its format, and keeps it through moves and casts."""

from __future__ import annotations

import copy

import pytest
import torch
from lowbit.affine_linear.reference import affine_linear
from torch import Tensor, nn
from torch.nn.functional import linear

from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.formats.codebook import BlockValues, CodebookWeight
from workbench.quantization.grid import Grid
from workbench.quantization.linear import QuantizedLinear
from workbench.quantization.methods import rtn


def make(
    bits: int, symmetric: bool, scattered: bool, bias: bool = False
) -> tuple[AffineWeight, QuantizedLinear]:
    weight = rtn.quantize(torch.randn(12, 40), Grid(bits, 8, symmetric))
    if scattered:
        g_idx = torch.randperm(40).remainder(5).to(torch.int16)
        weight = AffineWeight(weight.codes, weight.scale, weight.zero_point, g_idx, bits)
    return weight, QuantizedLinear.from_weight(
        weight, (12, 40), nn.Parameter(torch.randn(12)) if bias else None
    )


def stored(layer: QuantizedLinear) -> list[Tensor]:
    return list(layer.state_dict().values())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scattered", [True, False])
def test_computes_with_the_weight_of_the_format(bits: int, symmetric: bool, scattered: bool) -> None:
    weight, layer = make(bits, symmetric, scattered)
    assert torch.equal(layer.dequantize(), weight.dequantize())
    x = torch.randn(2, 5, 40)
    t = layer.tensors
    expected = affine_linear(x, t["codes"], t["scale"], t.get("zero_point"), t.get("g_idx"), bits)
    for _ in range(2):  # the second call uses what the first has laid out
        torch.testing.assert_close(layer(x), expected)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(layer(x.double()), x.double() @ weight.dequantize().double().T)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scattered", [True, False])
def test_stored_bits_are_the_bytes_of_the_state(bits: int, symmetric: bool, scattered: bool) -> None:
    weight, layer = make(bits, symmetric, scattered)
    assert layer.stored_bits == weight.stored_bits == 8 * sum(tensor.nbytes for tensor in stored(layer))


def test_bias_is_added_and_stored_beside() -> None:
    weight, layer = make(4, False, False, bias=True)
    assert layer.bias is not None
    x = torch.randn(3, 40)
    torch.testing.assert_close(layer(x), linear(x, weight.dequantize(), layer.bias))
    assert set(layer.state_dict()) == {"codes", "scale", "zero_point", "bias"}
    assert layer.stored_bits == weight.stored_bits


def test_casting_the_model_leaves_the_stored_weight_alone() -> None:
    _, layer = make(4, False, True)
    before = copy.deepcopy(layer.state_dict())
    for cast in (layer.double(), layer.to(torch.bfloat16), layer.float()):
        for name, tensor in cast.state_dict().items():
            assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])


def test_loading_another_state_forgets_the_decoded_weight() -> None:
    _, layer = make(4, True, False)
    _, other = make(4, True, False)
    x = torch.randn(3, 40)
    assert not torch.equal(layer(x), other(x))
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))


def test_serves_training_after_it_served_inference() -> None:
    """Adapters beside a quantized layer need the gradient to its input."""
    _, layer = make(4, True, False)
    with torch.inference_mode():
        layer(torch.randn(3, 40))
    x = torch.randn(3, 40, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], layer.dequantize().sum(0))


@pytest.mark.parametrize("in_features", [256, 192])  # rows of whole periods of words, and rows that are not
@pytest.mark.parametrize("double_quantized", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_multiplies_by_a_codebook(in_features: int, double_quantized: bool, shifted: bool) -> None:
    blocks = 20 * in_features // 64
    absmax = BlockValues.of(torch.rand(blocks), double_quantized=double_quantized)
    tau = BlockValues.of(torch.randn(blocks), double_quantized=double_quantized) if shifted else None
    codes = torch.randint(16, (20, in_features), dtype=torch.uint8)
    weight = CodebookWeight(codes, absmax, tau, "nf4", 64)
    layer = QuantizedLinear.from_weight(weight, (20, in_features))
    for rows in (1, 30):
        x = torch.randn(2, rows, in_features, requires_grad=True)
        y = layer(x)
        torch.testing.assert_close(y, x @ weight.dequantize().T, rtol=1e-4, atol=1e-3)
        y.sum().backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad[0, 0], weight.dequantize().sum(0), rtol=1e-4, atol=1e-3)
    assert layer(torch.randn(in_features, 3).T).shape == (3, 20)


def test_copies_and_moves_take_their_own_weights_along() -> None:
    _, layer = make(4, False, True)
    x = torch.randn(3, 40)
    before = layer(x)
    other = copy.deepcopy(layer).to(torch.bfloat16)
    other.scale.mul_(2)
    torch.testing.assert_close(layer(x), before)
    torch.testing.assert_close(other(x), 2 * before)
