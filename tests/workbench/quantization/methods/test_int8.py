"""LLM.int8 gives the codes of bitsandbytes, and its products."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes import functional
from torch.nn.functional import linear

from workbench.errors import NumericsError
from workbench.quantization.activations import Activations
from workbench.quantization.methods import int8


def test_codes_equal_those_of_bitsandbytes() -> None:
    weight = torch.randn(64, 172)
    codes, absmax, _ = functional.int8_vectorwise_quant(weight)
    ours = int8.quantize(weight)
    assert torch.equal(ours.codes.int() - 128, codes.int())
    torch.testing.assert_close(ours.scale[:, 0].float(), absmax / 127, rtol=2**-11, atol=0)


def test_products_equal_those_of_bitsandbytes_with_outlier_columns() -> None:
    weight, x = torch.randn(32, 64), torch.randn(10, 64)
    x[3, 5] = 20.0
    codes, absmax, outliers = functional.int8_vectorwise_quant(x.clone(), threshold=6.0)
    assert outliers is not None and outliers.tolist() == [5]
    their_codes, their_absmax, _ = functional.int8_vectorwise_quant(weight)
    their_weight = their_codes * (their_absmax / 127)[:, None]
    their_x = codes * (absmax / 127)[:, None]
    their_x[:, 5] = x[:, 5]
    ours = linear(Activations(8, 6.0).round(x), int8.quantize(weight).dequantize())
    torch.testing.assert_close(ours, linear(their_x, their_weight), rtol=2e-3, atol=2e-2)


def test_every_weight_stays_within_half_a_step_and_zeros_stay() -> None:
    weight = torch.randn(16, 96)
    weight[3] = 0
    decoded = int8.quantize(weight).dequantize()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((decoded - weight).abs() <= step * (0.5 + 127 * 2**-11)).all())
    assert bool((decoded[3] == 0).all())


def test_a_damaged_weight_is_refused() -> None:
    with pytest.raises(NumericsError, match="NaN"):
        int8.quantize(torch.full((2, 8), torch.nan))
