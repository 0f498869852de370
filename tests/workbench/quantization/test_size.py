"""Real bits of the largest matrices of LLaMA-3-8B: the published arithmetic, or ours where none is."""

from __future__ import annotations

from typing import Any

import pytest

from workbench.quantization import Plan, expected_bits
from workbench.recipe.quantize import Quantize

SHAPE = (4096, 14336)


@pytest.mark.parametrize(
    ("method", "bits", "real", "settings"),
    [
        ("rtn", 4, 4 + 20 / 128, {}),
        ("gptq", 4, 4 + 16 / 128, {"symmetric": True}),
        ("awq", 3, 3 + 16 / 14336 + 3 / 14336, {"group_size": "channel"}),
        ("hqq", 2, 2 + 32 / 128, {}),
        ("nf4", 4, 4 + 8 / 64 + 32 / (64 * 256), {}),
        ("nf4", 4, 4.5, {"nf4": {"double_quantization": False}}),
        ("quip", 2, 2 + 16 / 4096, {}),
        ("pb-llm", 1.7, 1 + 0.1 * 7 + 1 + 32 / 128, {}),
        ("pb-llm", 2, 2 + 1 + 32 / 128, {}),
        ("billm", 1, 2 + 7 * 16 / 128, {}),
        ("slim-llm", 3, 3 + 19 / 128, {}),
        ("smoothquant", 8, 8 + 16 / 14336, {}),
        ("int8", 8, 8 + 16 / 14336, {}),
        ("qlora", 4, 4.127 + 16 * 64 / 4096 + 16 * 64 / 14336, {}),
        ("ir-qlora", 4, 4.253 + 16 * 8 / 4096 + 16 * 8 / 14336, {"ir_qlora": {"rank": 8}}),
        ("db-llm", 2, 2 + 32 / 128, {}),
    ],
)
def test_bits_a_weight(method: str, bits: float, real: float, settings: dict[str, Any]) -> None:
    section = {"kind": "quantize", "methods": [method], "bits": [bits], "calibration": {"mixture": {"a": 1}}}
    tuning = {"mixture": {"a": 1}, "tokens": 8, "batch_size": 1, "sequence_length": 8, "learning_rate": 1}
    stage = Quantize.model_validate(section | {"tuning": tuning} | settings)
    found = expected_bits(method, SHAPE, Plan(stage, bits, seed=0)) / (SHAPE[0] * SHAPE[1])
    assert found == pytest.approx(real, abs=0.005)
