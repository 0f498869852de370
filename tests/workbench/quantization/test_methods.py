"""Every method that is not trained, at every width: a tiny model goes through, and loads again bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench import models, quantization
from workbench.quantization import METHODS, Plan
from workbench.quantization.export import dense
from workbench.recipe.quantization import FIXED_BITS, TUNED, QuantizationMethod
from workbench.recipe.quantize import Quantize

TOKENS = torch.arange(40)[None]
WIDTHS = {"pb-llm": [1.7, 2, 4.5], "smoothquant": range(2, 9), "slim-llm": range(2, 8)}
CASES = [
    (method, bits)
    for method in METHODS
    if method not in TUNED
    for bits in WIDTHS.get(method, [FIXED_BITS[method]] if method in FIXED_BITS else range(1, 9))
]


@pytest.fixture
def calibration() -> list[Tensor]:
    return [torch.randint(320, (4, 32))]


@pytest.mark.parametrize(("method", "bits"), CASES)
def test_quantized_saved_and_loaded_again(
    tiny_model_folder: Path,
    tmp_path: Path,
    calibration: list[Tensor],
    method: QuantizationMethod,
    bits: float,
) -> None:
    model, tokenizer = models.load(tiny_model_folder), models.load_tokenizer(tiny_model_folder)
    section = {
        "kind": "quantize",
        "methods": [method],
        "bits": [bits],
        "group_size": 32,
        "calibration": {"mixture": {"text": 1}},
    }
    shapes = quantization.linear_shapes(model)
    with torch.no_grad():
        exact = model(TOKENS).logits
    stage = Quantize.model_validate(section)
    report = quantization.quantize(model, stage, method, bits, calibration, "test")
    models.save(model, tokenizer, tmp_path / "q", {})

    stored = load_file(tmp_path / "q" / "model.safetensors")
    names = tuple(f"{name}." for name in shapes)
    in_file = sum(8 * tensor.nbytes for name, tensor in stored.items() if name.startswith(names))
    assert report.stored_bits == in_file
    assert sum(layer.bits * layer.shape[0] * layer.shape[1] for layer in report.layers) == in_file

    plan = Plan(stage, bits, seed=0)
    forecast = sum(quantization.expected_bits(method, shape, plan) for shape in shapes.values())
    assert forecast == pytest.approx(in_file, rel=0.01 if method in ("slim-llm", "pb-llm") else 0)

    again = models.load(tmp_path / "q")
    with torch.no_grad():
        logits = model(TOKENS).logits
        assert torch.equal(again(TOKENS).logits, logits)
    change = float((logits - exact).norm() / exact.norm())
    assert 0 < change < 1.5
    if METHODS[method].activations is None:
        dense.densify(again)
        with torch.no_grad():
            torch.testing.assert_close(again(TOKENS).logits, logits)
