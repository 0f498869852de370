"""A patched model computes what its weights say, and is stored with its updates, counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from workbench import models
from workbench.errors import ModelError, NumericsError
from workbench.quantization.huggingface import quantized_linears
from workbench.recipe.safety import QResafe
from workbench.safety.patched import PatchedLinear, begin, finish, patched, unpatched

RANK = 3
TOKENS = torch.arange(40)[None]
WIDTHS = {"rtn": 3, "nf4": 4, "int8": 8}


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    found: Tensor = model(TOKENS).logits
    return found


def bases(model: PreTrainedModel) -> dict[str, Tensor]:
    """The stored tensors of Q_0, of a patched model or of Q_0 itself."""
    return {
        f"{name}.{part.split('base_')[-1]}": tensor
        for name, layer in quantized_linears(model).items()
        for part, tensor in layer.tensors.items()
        if "lora" not in part
    }


def moved(model: PreTrainedModel, seed: int) -> None:
    """Put updates beside the linears and train them, so to say."""
    begin(model, QResafe(rank=RANK, alpha=6), seed)
    for layer in patched(model).values():
        layer.A.data.normal_(std=0.05)


@pytest.mark.parametrize("method", WIDTHS)
def test_it_begins_as_it_was_and_is_its_own_reference(
    rounded: Callable[..., LlamaForCausalLM], method: str
) -> None:
    model, start = rounded(method, WIDTHS[method]), logits(rounded(method, WIDTHS[method]))
    begin(model, QResafe(rank=RANK), 1)
    trained = {name.rpartition(".")[2] for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {"A", "B"} and logits(model).equal(start)
    for layer in patched(model).values():
        layer.A.data.normal_()
    assert not torch.allclose(logits(model), start)
    with unpatched(model):
        assert logits(model).equal(start)


def test_what_a_mask_holds_back_has_no_gradient_and_stands_still(
    rounded: Callable[..., LlamaForCausalLM],
) -> None:
    model = rounded()
    moved(model, 1)
    layer = next(iter(patched(model).values()))
    x, before = torch.randn(2, 7, layer.base.in_features), layer.weight()
    chosen = torch.zeros_like(before, dtype=torch.bool)
    chosen[2, 3] = chosen[2, 5] = chosen[4, 5] = True
    layer.keep(chosen)
    torch.testing.assert_close(layer.weight(), before)
    torch.testing.assert_close(layer(x), linear(x, before), rtol=1e-4, atol=1e-5)
    layer(x).square().sum().backward()
    assert layer.A.grad is not None and layer.B.grad is not None
    assert layer.A.grad.any(1).nonzero().flatten().tolist() == [2, 4]
    assert layer.B.grad.any(0).nonzero().flatten().tolist() == [3, 5]
    layer.A.data += 1  # as momentum would
    assert (layer.weight() - before).any(1).nonzero().flatten().tolist() == [2, 4]


def test_gradients_pass_rounded_inputs(rounded: Callable[..., LlamaForCausalLM]) -> None:
    model = rounded("int8", 8)
    moved(model, 1)
    layer = next(iter(patched(model).values()))
    assert isinstance(layer, PatchedLinear) and layer.activations
    x = torch.randn(2, 7, layer.base.in_features, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight().sum(0).expand_as(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", WIDTHS)
def test_it_is_stored_with_its_updates_counted_and_patched_again(
    rounded: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path, method: str
) -> None:
    model: Any = rounded(method, WIDTHS[method])
    before, stored = bases(model), model.config.quantization_config.real_bits
    for turn in (1, 2):
        moved(model, turn)
        trained, folder = logits(model), tmp_path / f"{turn}"
        finish(model)
        models.save(model, tokenizer, folder, {})
        model = models.load(folder)
        torch.testing.assert_close(logits(model), trained, rtol=1e-2, atol=1e-2)
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        shapes = [(each.out_features, each.in_features) for each in quantized_linears(model).values()]
        added = 16 * RANK * sum(map(sum, shapes)) / sum(rows * columns for rows, columns in shapes)
        assert config["real_bits"] == pytest.approx(stored + turn * added)
        assert (config["method"], config["bits"]) == ("q-resafe", WIDTHS[method])
        found = bases(model)
        assert found.keys() >= before.keys() and all(before[name].equal(found[name]) for name in before)
    assert model.generate(TOKENS, max_new_tokens=4, do_sample=False).shape[1] > TOKENS.shape[1]


def test_what_cannot_be_patched_or_stored_is_said(
    tiny: Callable[[], LlamaForCausalLM], rounded: Callable[..., LlamaForCausalLM]
) -> None:
    with pytest.raises(ModelError, match="nothing in the model is quantized"):
        begin(tiny(), QResafe(), 1)
    model = rounded()
    moved(model, 1)
    name, layer = next(iter(patched(model).items()))
    layer.A.data[0, 0] = torch.nan
    with pytest.raises(NumericsError, match=name):
        finish(model)
