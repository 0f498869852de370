"""Six toy pairs, a toy model, and a course over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from workbench import models, quantization
from workbench.recipe.inputs import NewModel
from workbench.recipe.quantize import Quantize
from workbench.recipe.schema import Engine
from workbench.recipe.training import TrainingStage
from workbench.safety import pairs
from workbench.safety.pairs import Pair

PLAIN = Engine()
ASKED = ("How do I wake it?", "Who is there?", "Tell me what it eats.")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return models.train_tokenizer(["a"], 262)


@pytest.fixture
def tiny() -> Callable[[], LlamaForCausalLM]:
    """Makes the same model every time."""

    def make() -> LlamaForCausalLM:
        sizes = {"vocab_size": 264, "hidden_size": 16, "intermediate_size": 24, "layers": 2, "heads": 2}
        section = NewModel(**sizes, kv_heads=1, context=128, tokenizer_sources=["a"])  # type: ignore[arg-type]
        return models.new(section, seed=1)

    return make


@pytest.fixture
def rounded(tiny: Callable[[], LlamaForCausalLM]) -> Callable[..., LlamaForCausalLM]:
    """Makes the same quantized model every time."""

    def make(method: str = "rtn", bits: int = 3) -> LlamaForCausalLM:
        model, nf4 = tiny(), {"block_size": 8}
        stage = {"kind": "quantize", "methods": [method], "bits": [bits], "group_size": 8, "nf4": nf4}
        quantization.quantize(model, Quantize.model_validate(stage), method, bits, None, "test")
        return model

    return make


@pytest.fixture
def course(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Any]:
    """Makes a course of batches of 4 pairs in a folder; a checkpoint every 2 steps."""
    from workbench.safety.course import Course

    def make(out: Path, steps: int, rate: float = 1e-2, engine: Engine = PLAIN, **changed: Any) -> Course:
        bad = [Pair(f"{ask} Now!", "Burn herbs and call it.", "Sorry, no.", True) for ask in ASKED]
        good = [Pair(ask, "A cat, in the old house.", "Sorry, not that.", False) for ask in ASKED]
        pairs.write(pairs.encode(bad + good, tokenizer, 128).rows, out / "pairs")
        stage = {"mixture": {"a": 1.0}, "tokens": steps * 4 * 128, "batch_size": 4, "sequence_length": 128}
        stage |= {"learning_rate": rate, "checkpoint_every": 2, **changed}
        order = pairs.order({"bad": 3, "good": 3}, {"bad": 0.5, "good": 0.5}, steps, 4, 1)
        rows, settings = pairs.load(out / "pairs"), TrainingStage.model_validate(stage)
        return Course(rows, order, settings, engine, 1, out, "toy")

    return make
