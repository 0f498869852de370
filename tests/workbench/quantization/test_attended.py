"""Attention runs once for the linears behind it, and nothing that comes out differs by it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from workbench import quantization
from workbench.quantization.attended import Attended
from workbench.recipe.quantize import Quantize

BATCHES = 3
PLAIN = (5 + 4) * BATCHES  # a pass for each group of linears, and one for the outputs of the first block


def decoder(key_value_heads: int, attention: str = "sdpa") -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
    )
    model: PreTrainedModel = LlamaForCausalLM(config).eval()
    model.set_attn_implementation(attention)
    return model


@pytest.fixture
def calibration() -> list[Tensor]:
    return [torch.randint(320, (2, length)) for length in (24, 16, 7)]  # a batch each


def quantized(model: PreTrainedModel, calibration: list[Tensor], method: str) -> dict[str, Tensor]:
    model = copy.deepcopy(model)
    section = {"kind": "quantize", "methods": [method], "bits": [3], "group_size": 32}
    stage = Quantize.model_validate(section | {"calibration": {"mixture": {"text": 1}}})
    quantization.quantize(model, stage, method, 3, calibration, "test")
    return dict(model.state_dict())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every run of an attention."""
    from transformers.models.llama.modeling_llama import LlamaAttention

    seen: list[nn.Module] = []
    forward = LlamaAttention.forward

    def counted(self: LlamaAttention, *args: Any, **kwargs: Any) -> Any:
        seen.append(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaAttention, "forward", counted)
    return seen


@contextmanager
def keeping_nothing(self: Attended, *args: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize("key_value_heads", [4, 2])
@pytest.mark.parametrize("method", ["gptq", "quip"])
def test_codes_are_those_of_plain_passes(
    calibration: list[Tensor],
    runs: list[nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    key_value_heads: int,
) -> None:
    model = decoder(key_value_heads)
    found = quantized(model, calibration, method)
    # for its own linears, up to the first and up to the last; and once more to see that it ends in that one
    assert len(runs) == 2 * (2 * BATCHES + 1)
    runs.clear()
    monkeypatch.setattr(Attended, "keeping", keeping_nothing)
    plain = quantized(model, calibration, method)
    assert len(runs) == PLAIN
    assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in plain)


def with_weights(model: PreTrainedModel) -> None:
    """Attention weights are put out too, which a stand-in has not."""


def scaled(model: PreTrainedModel) -> None:
    """The output of attention is twice that of its last linear."""
    for block in model.model.layers:
        block.self_attn.register_forward_hook(lambda _, args, output: (2 * output[0], None))


@pytest.mark.parametrize(("attention", "change"), [("eager", with_weights), ("sdpa", scaled)])
def test_attention_that_ends_otherwise_runs_again(
    calibration: list[Tensor], runs: list[nn.Module], attention: str, change: Any
) -> None:
    model = decoder(2, attention)
    change(model)
    quantized(model, calibration, "gptq")
    assert len(runs) == PLAIN + 2  # and once a block to see that it does


def test_the_block_is_as_it_was_after_a_pass_that_fails(calibration: list[Tensor]) -> None:
    block = decoder(2).model.layers[0]
    attended, attention = Attended(), block.self_attn
    attended._module, attended._last, attended._inputs = "self_attn", "o_proj", [torch.zeros(1, 3, 64)]
    with pytest.raises(ZeroDivisionError), attended.standing_in(block):
        assert block.self_attn(hidden_states=None)[0].shape == (1, 3, 64)
        raise ZeroDivisionError
    assert block.self_attn is attention
