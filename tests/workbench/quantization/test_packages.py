"""On real trained weights and real text, the loss that other packages reach with the same method."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from workbench import models, quantization
from workbench.recipe.quantization import QuantizationMethod
from workbench.recipe.quantize import Quantize

# Nats per token of babyllama-0.9M on grimm_en.txt: hqq 0.2.8.post1 along the input in groups of 32,
# bitsandbytes 0.50.2, llmcompressor 0.14.0.1 without smoothing (oracles/README.md of the shared data).
REACHED: list[tuple[QuantizationMethod, int, float]] = [
    ("hqq", 3, 1.9414),
    ("hqq", 2, 2.4860),
    ("int8", 8, 1.8777),
    ("smoothquant", 8, 1.8789),
]


@pytest.mark.parametrize(("method", "bits", "theirs"), REACHED)
def test_within_one_percent_in_perplexity(
    shared_data: Path, method: QuantizationMethod, bits: int, theirs: float
) -> None:
    folder = shared_data / "models" / "babyllama-0.9M"
    model, tokenizer = models.load(folder), models.load_tokenizer(folder)
    text = (shared_data / "text" / "grimm_en.txt").read_text(encoding="utf-8")[:60_000]
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][: 80 * 256]).view(80, 256)
    section = {"kind": "quantize", "methods": [method], "bits": [bits], "group_size": 32}
    stage = Quantize.model_validate(section | {"calibration": {"mixture": {"text": 1}}})
    quantization.quantize(model, stage, method, bits, [tokens[:8]], "test")
    with torch.no_grad():
        losses = [
            cross_entropy(model(batch, use_cache=False).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
            for batch in tokens.split(8)
        ]
    assert float(torch.stack(losses).mean()) == pytest.approx(theirs, abs=math.log(1.01))
