"""The update of QLoRA changes nothing before training, and its matrix is that of nf4."""

from __future__ import annotations

import math

import torch

from workbench.quantization import METHODS, Plan
from workbench.quantization.methods import nf4, qlora
from workbench.recipe.quantize import Quantize


def test_an_update_before_training_changes_nothing() -> None:
    A, B = qlora.start((24, 48), 4, torch.Generator().manual_seed(1))
    assert A.shape == (4, 48) and B.shape == (24, 4)
    assert float(A.abs().max()) <= 1 / math.sqrt(48) and 0.25 < float(A.std() * math.sqrt(48 * 3)) < 1.5
    assert not qlora.update(torch.randn(5, 3, 48), A, B).any()


def test_the_seed_decides() -> None:
    first, again, other = (qlora.start((8, 8), 2, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_update_is_a_product() -> None:
    A, B, x = torch.randn(3, 16), torch.randn(8, 3), torch.randn(2, 5, 16)
    torch.testing.assert_close(qlora.update(x, A, B), x @ (B @ A).T)


def test_rounding_is_that_of_nf4() -> None:
    tuning = {"mixture": {"a": 1}, "tokens": 64, "batch_size": 1, "sequence_length": 64, "learning_rate": 1}
    stage = Quantize.model_validate(
        {"kind": "quantize", "methods": ["qlora"], "bits": [4], "tuning": tuning, "nf4": {"block_size": 32}}
    )
    W = torch.randn(16, 64)
    ((found,), _) = METHODS["qlora"].quantize([W], None, Plan(stage, 4, seed=0))
    assert torch.equal(found.dequantize(), nf4.quantize(W, stage.nf4).dequantize())
