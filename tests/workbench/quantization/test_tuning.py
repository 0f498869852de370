"""Before training nothing changes but what rounding changed; only what a method trains has a gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from workbench import models, quantization
from workbench.errors import ModelError, NumericsError
from workbench.quantization import tuning
from workbench.quantization.formats.adapted import AdaptedWeight
from workbench.quantization.huggingface import quantized_linears
from workbench.quantization.tuning import AdaptedLinear
from workbench.recipe.quantization import ADAPTED, FIXED_BITS, TUNED
from workbench.recipe.quantize import Quantize

TOKENS = torch.arange(40)[None]
SMALL = {"rank": 4, "alpha": 8}


def section(method: str) -> Quantize:
    return Quantize.model_validate(
        {
            "kind": "quantize",
            "methods": [method],
            "bits": [FIXED_BITS[method]],
            "group_size": 32,
            "tuning": {
                "mixture": {"text": 1},
                "tokens": 64,
                "batch_size": 1,
                "sequence_length": 64,
                "learning_rate": 1e-2,
            },
            "qlora": SMALL,
            "ir_qlora": SMALL | {"steps": 2},
        }
    )


def rounded(folder: Path, method: str) -> PreTrainedModel:
    """What `prepare` takes."""
    model = models.load(folder)
    if method in ADAPTED:
        quantization.quantize(model, section(method), method, 4, None, "test")
    return model


def trained(folder: Path, method: str) -> PreTrainedModel:
    """A prepared model after a few steps of plain descent."""
    model = rounded(folder, method)
    tuning.prepare(model, method, section(method), seed=1)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    for _ in range(3):
        model(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    found: torch.Tensor = model(TOKENS).logits
    return found


@pytest.mark.parametrize("method", sorted(ADAPTED))
def test_an_adapter_changes_nothing_before_training(tiny_model_folder: Path, method: str) -> None:
    model = rounded(tiny_model_folder, method)
    before = logits(model)
    tuning.prepare(model, method, section(method), seed=1)
    assert sum(isinstance(module, AdaptedLinear) for module in model.modules()) == 14
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("method", sorted(TUNED))
def test_only_what_the_method_trains_moves(tiny_model_folder: Path, method: str) -> None:
    model = rounded(tiny_model_folder, method)
    tuning.prepare(model, method, section(method), seed=1)
    names = {"db-llm": {"change"}, "qlora": {"A", "B"}, "ir-qlora": {"A", "B", "beta1", "beta2"}}
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in free} == names[method]
    counted = sum(
        tuning.num_trainable(method, shape, section(method))
        for shape in quantization.linear_shapes(models.load(tiny_model_folder)).values()
    )
    assert counted == sum(p.numel() for p in model.parameters() if p.requires_grad)
    before, after = model.state_dict(), trained(tiny_model_folder, method).state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == free


@pytest.mark.parametrize("method", sorted(TUNED))
def test_finished_it_computes_what_was_trained(tiny_model_folder: Path, tmp_path: Path, method: str) -> None:
    """But for 16 bits of what was trained, which turn a few planes over; and the folder is read back."""
    model = trained(tiny_model_folder, method)
    expected = logits(model.eval())
    tuning.finish(model, method, FIXED_BITS[method])
    found = logits(model)
    assert 0 < (found - expected).norm() / expected.norm() < (5e-3 if method in ADAPTED else 5e-2)
    models.save(model, models.load_tokenizer(tiny_model_folder), tmp_path / "q", {})
    again = models.load(tmp_path / "q")
    assert torch.equal(logits(again), found)
    report = tuning.compare(again, models.load(tiny_model_folder), method, FIXED_BITS[method])
    assert report.real_bits == again.config.quantization_config.real_bits
    plan = quantization.Plan(section(method), FIXED_BITS[method], 1)
    for layer in report.layers:
        bits = quantization.expected_bits(method, layer.shape, plan)
        assert layer.bits * layer.shape[0] * layer.shape[1] == bits
        assert 0 < layer.weight_error < 0.8
        if method in ADAPTED:
            assert layer.diagnostics["rounding_error"] < 0.2
            assert 3 < layer.diagnostics["code_entropy"] < 4


def test_connections_are_merged(tiny_model_folder: Path) -> None:
    model = rounded(tiny_model_folder, "ir-qlora")
    tuning.prepare(model, "ir-qlora", section("ir-qlora"), seed=1)
    for module in model.modules():
        if isinstance(module, AdaptedLinear) and module.beta1 is not None and module.beta2 is not None:
            torch.nn.init.normal_(module.B, std=0.02)
            torch.nn.init.constant_(module.beta1, 0.3)
            torch.nn.init.constant_(module.beta2, 0.2)
    apart = logits(model)
    tuning.finish(model, "ir-qlora", 4)
    assert all(isinstance(layer.quantized, AdaptedWeight) for layer in quantized_linears(model).values())
    torch.testing.assert_close(logits(model), apart, rtol=5e-3, atol=5e-3)


def test_the_seed_decides_alike_on_every_process(tiny_model_folder: Path) -> None:
    first, again = (rounded(tiny_model_folder, "qlora") for _ in range(2))
    torch.manual_seed(1)
    tuning.prepare(first, "qlora", section("qlora"), seed=7)
    torch.manual_seed(2)
    tuning.prepare(again, "qlora", section("qlora"), seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_quantized_model_is_not_binarized(tiny_model_folder: Path) -> None:
    with pytest.raises(ModelError, match="quantized already"):
        tuning.prepare(rounded(tiny_model_folder, "qlora"), "db-llm", section("db-llm"), seed=1)
    odd = section("db-llm").at(48)
    with pytest.raises(ModelError, match="sizes that divide all are"):
        tuning.prepare(models.load(tiny_model_folder), "db-llm", odd, seed=1)


def test_numbers_that_are_not_finite_are_refused_by_name(tiny_model_folder: Path) -> None:
    model = rounded(tiny_model_folder, "qlora")
    tuning.prepare(model, "qlora", section("qlora"), seed=1)
    damaged = model.get_submodule("model.layers.1.mlp.up_proj")
    assert isinstance(damaged, AdaptedLinear)
    damaged.B.data[2, 1] = torch.nan
    with pytest.raises(NumericsError, match=r"model\.layers\.1\.mlp\.up_proj: an adapter is NaN"):
        tuning.finish(model, "qlora", 4)
    broken = models.load(tiny_model_folder)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[3, 3] = torch.inf
    with pytest.raises(NumericsError, match=r"model\.layers\.0\.mlp\.down_proj: a weight is NaN"):
        tuning.prepare(broken, "db-llm", section("db-llm"), seed=1)
