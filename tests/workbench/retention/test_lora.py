"""LoRA starts as the model that it is put into and ends as a stock model that computes the same."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from workbench import models, training
from workbench.recipe.methods import Lora
from workbench.recipe.schema import Engine
from workbench.retention import lora

TOKENS = torch.arange(3, 23).reshape(2, 10)


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    worker = Path(__file__).parents[1] / "training" / "worker.py"
    return SimpleNamespace(**runpy.run_path(str(worker)))


@pytest.fixture
def model(tiny_model_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_model_folder).eval()


def stir(model: LlamaForCausalLM) -> None:
    """Stand in for training."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.02 * torch.randn_like(parameter))


def test_only_the_adapters_of_the_blocks_are_trained(model: LlamaForCausalLM) -> None:
    linears = [linear for block in models.blocks(model) for linear in models.linears(block).values()]
    expected = sum(4 * (linear.in_features + linear.out_features) for linear in linears)
    lora.wrap(model, Lora(rank=4), 1)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == expected
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)


def test_embeddings_and_head_are_trained_whole_where_asked(model: LlamaForCausalLM) -> None:
    merge = lora.wrap(model, Lora(rank=4, train_embeddings=True), 1)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert trained == {"model.embed_tokens.weight", "lm_head.weight"}
    assert merge(model) is model


def test_changes_nothing_before_training(model: LlamaForCausalLM) -> None:
    before = model(TOKENS).logits
    lora.wrap(model, Lora(rank=4), 1)
    assert torch.equal(model.eval()(TOKENS).logits, before)


@pytest.mark.parametrize(("stabilized", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_merging_adds_the_scaled_product(model: LlamaForCausalLM, stabilized: bool, scale: float) -> None:
    names = {name for name, _ in model.named_parameters()}
    before = model.model.layers[1].mlp.up_proj.weight.detach().clone()
    merge = lora.wrap(model, Lora(rank=4, alpha=8, rank_stabilized=stabilized), 1)
    stir(model)
    unmerged = model.eval()(TOKENS).logits
    adapter: Any = model.model.layers[1].mlp.up_proj
    update = scale * adapter.lora_B["default"].weight @ adapter.lora_A["default"].weight
    merged = merge(model)
    assert merged is model and {name for name, _ in merged.named_parameters()} == names
    torch.testing.assert_close(merged.model.layers[1].mlp.up_proj.weight, before + update)
    torch.testing.assert_close(merged(TOKENS).logits, unmerged, rtol=1e-4, atol=1e-5)


def test_one_seed_gives_one_start(tiny_model_folder: Path) -> None:
    starts = []
    for seed in (1, 1, 2):
        model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
        state = torch.random.get_rng_state()
        lora.wrap(model, Lora(rank=4), seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        starts.append(dict(model.named_parameters()))
    name = next(name for name in starts[0] if "lora_A" in name)
    assert torch.equal(starts[0][name], starts[1][name])
    assert not torch.equal(starts[0][name], starts[2][name])


def test_counts_on_the_meta_device(model: LlamaForCausalLM) -> None:
    with torch.device("meta"):
        empty = LlamaForCausalLM(model.config)
        lora.wrap(empty, Lora(rank=4), 1)
    lora.wrap(model, Lora(rank=4), 1)
    assert [(n, p.shape, p.requires_grad) for n, p in empty.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in model.named_parameters()
    ]


@pytest.mark.parametrize(
    "engine",
    [{"activation_checkpointing": True}, {"zero_stage": 2, "activation_checkpointing": True}],
    ids=str,
)
def test_trains_in_the_loop(toy: SimpleNamespace, tmp_path: Path, engine: dict[str, Any]) -> None:
    model = toy.make_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    merge = lora.wrap(model, Lora(rank=2), 1)
    stage = toy.make_stage(probe_every=None, learning_rate=2e-2)
    result = training.train(
        model,
        toy.make_mixture(tmp_path),
        stage,
        Engine.model_validate(engine),
        1,
        tmp_path / "out",
        title="lora",
    )
    losses = toy.losses(tmp_path / "out")
    assert losses[-1] < losses[0] - 0.02
    assert result.optimizer_bytes < 0.3 * 8 * sum(weight.numel() for weight in before.values())
    after = dict(merge(model).named_parameters())
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
