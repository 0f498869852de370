"""What a Control LLM trains, what its divergence measures, and that DeepSpeed changes neither."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from workbench import models
from workbench.data import Batch
from workbench.errors import ModelError
from workbench.models.interpolators import INTERPOLATORS
from workbench.recipe.methods import ControlLlm
from workbench.recipe.schema import Engine
from workbench.retention import control_llm
from workbench.training import launch

TOKENS = torch.randint(0, 97, (2, 10), generator=torch.Generator().manual_seed(5))
BATCH = Batch(
    TOKENS, TOKENS, torch.arange(10).expand(2, 10), torch.zeros(2, 10, dtype=torch.int32), ["a", "b"]
)


def section(**settings: Any) -> ControlLlm:
    return ControlLlm.model_validate({"blocks": 2, **settings})


def make(tie: bool = True) -> LlamaForCausalLM:
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=tie))


def prepared(settings: ControlLlm, *, moved: bool = True) -> models.ControlLlamaForCausalLM:
    """An expanded model in training mode, frozen as the settings say, whose copies have moved."""
    model = models.expand(make(), settings, 1)
    assert isinstance(model, models.ControlLlamaForCausalLM)
    with torch.no_grad():
        for block in models.parallel_blocks(model):
            for parameter in block.expanded.parameters():
                parameter.add_(0.05 * moved * torch.randn_like(parameter))
    control_llm.freeze(model, settings)
    return model.train()


def penalty(model: torch.nn.Module, settings: ControlLlm, batch: Batch = BATCH) -> Tensor:
    logits = model(batch.tokens, use_cache=False).logits
    chosen = control_llm.divergence(settings)
    assert chosen is not None
    return chosen(model, batch, logits)


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("settings", "of_interpolators"),
    [
        ({}, ()),
        ({"learn_factor": True}, ("factor",)),
        ({"interpolator": "slerp"}, ()),
        ({"interpolator": "dlerp"}, ("linear",)),
        ({"interpolator": "dlerpin", "learn_factor": True}, ("linear", "factor")),
        ({"interpolator": "moe"}, ()),
        ({"interpolator": "moe", "alpha": "interpolation"}, ("linear", "bias")),
        ({"interpolator": "prog", "divergence": "none"}, ("linear",)),
        ({"interpolator": "proj"}, ("linear",)),
        ({"interpolator": "proj", "divergence": "none"}, ()),
    ],
    ids=str,
)
def test_what_is_trained_is_what_gets_a_gradient(
    settings: dict[str, Any], of_interpolators: tuple[str, ...]
) -> None:
    chosen = section(**settings)
    model = prepared(chosen)
    copies = {name for name, _ in model.named_parameters() if ".expanded." in name}
    mixes = {f"model.layers.{i}.interpolator.{name}" for i in (1, 3) for name in of_interpolators}
    assert trained(model) == copies | mixes
    loss = model(TOKENS, labels=TOKENS, use_cache=False).loss
    if kept := control_llm.divergence(chosen):
        loss = loss + kept(model, BATCH, loss)
    loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained(model)


def test_switches_free_blocks_and_embeddings() -> None:
    everything = {name for name, _ in prepared(section()).named_parameters()}
    blocks = {name for name in everything if ".layers." in name and ".interpolator." not in name}
    mixes = {name for name in everything if ".interpolator." in name}
    copies = {name for name in everything if ".expanded." in name}
    assert trained(prepared(section(freeze_blocks=False))) == blocks
    assert trained(prepared(section(freeze_embeddings=False))) == everything - blocks - mixes | copies
    assert "model.embed_tokens.weight" in trained(
        prepared(section(freeze_embeddings=False))
    )  # tied to the head
    untied = models.expand(make(tie=False), section(), 1)
    control_llm.freeze(untied, section())
    assert not untied.lm_head.weight.requires_grad


def test_hybrid_and_stack_train_the_copies_behind_their_blocks() -> None:
    hybrid = trained(prepared(section(structure="hybrid")))
    assert {name.split(".")[2] for name in hybrid} == {"2", "4"}
    stack = models.expand(make(), section(structure="stack"), 1)
    control_llm.freeze(stack, section(structure="stack"))
    assert {name.split(".")[2] for name in trained(stack)} == {"2", "5"}
    assert control_llm.divergence(section(structure="stack")) is None
    assert control_llm.divergence(section(divergence="none")) is None


def test_a_model_without_copies_is_refused() -> None:
    with pytest.raises(ModelError, match="no copies to train"):
        control_llm.freeze(make(), section())


def test_trainable_share_of_llama_3_8b() -> None:
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        settings = ControlLlm(blocks=8, learn_factor=True)
        model = models.expand(LlamaForCausalLM(config), settings, 1)
    control_llm.freeze(model, settings)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 1_744_896_000 + 8


def test_the_prefix_below_the_first_copy_runs_without_autograd() -> None:
    model, seen = prepared(section()), []
    first, second = models.parallel_blocks(model)
    for block in (first, second):
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert model(TOKENS, use_cache=False).logits.requires_grad
    assert seen[0].grad_fn is None and not seen[0].requires_grad
    assert seen[1].grad_fn is not None


@pytest.mark.parametrize("divergence", ["mse", "cosine", "norm-cosine"])
def test_divergence_is_zero_where_copies_equal_their_blocks(divergence: str) -> None:
    settings = section(divergence=divergence)
    assert penalty(prepared(settings, moved=False), settings).item() == pytest.approx(0, abs=1e-12)
    assert penalty(prepared(settings), settings).item() > 1e-9


@pytest.mark.parametrize("divergence", ["mse", "cosine", "norm-cosine"])
def test_divergence_agrees_with_its_formula(divergence: str) -> None:
    settings = section(divergence=divergence, alpha=0.3)
    model, branches = prepared(settings), []
    for block in models.parallel_blocks(model):
        for branch in (block.pretrained, block.expanded):
            branch.register_forward_hook(lambda _, __, output: branches.append(output.detach().double()))
    found = penalty(model, settings)
    expected = []
    for p, e in zip(branches[::2], branches[1::2], strict=True):
        below = 1 - (p * e).sum(-1) / (p.norm(dim=-1) * e.norm(dim=-1))
        magnitude = (p.square().mean(-1).sqrt() - e.square().mean(-1).sqrt()) ** 2
        terms = {
            "mse": (e - p).square().mean(-1),
            "cosine": 0.5 * below**2,
            "norm-cosine": 0.25 * below**2 + 0.5 * magnitude,
        }
        expected.append(0.3 * terms[divergence].mean())
    torch.testing.assert_close(found.double(), torch.stack(expected).mean(), rtol=1e-3, atol=1e-12)
    assert found.dtype == torch.float32 and found.shape == ()


def test_norm_cosine_sees_a_length_that_cosine_does_not() -> None:
    p = torch.randn(2, 3, 16)
    torch.testing.assert_close(control_llm.cosine(p, 1.5 * p), torch.zeros(2, 3))
    expected = 0.5 * (0.5 * p.square().mean(-1).sqrt()) ** 2
    torch.testing.assert_close(control_llm.norm_cosine(p, 1.5 * p), expected)
    opposite = functional.normalize(p, dim=-1)
    torch.testing.assert_close(
        control_llm.cosine(opposite, -opposite), torch.full((2, 3), 1.5)
    )  # Huber's line


def test_padding_does_not_count() -> None:
    settings = section()
    model = prepared(settings)
    documents = torch.zeros(2, 10, dtype=torch.int32)
    documents[0, 6:], documents[1] = -1, -1
    padded = Batch(TOKENS, TOKENS, BATCH.positions, documents, BATCH.sources)
    short = TOKENS[:1, :6]
    alone = Batch(short, short, BATCH.positions[:1, :6], documents[:1, :6], ["a"])
    torch.testing.assert_close(penalty(model, settings, padded), penalty(model, settings, alone))
    nothing = Batch(TOKENS, TOKENS, BATCH.positions, torch.full_like(documents, -1), BATCH.sources)
    assert penalty(model, settings, nothing).item() == 0


def test_interpolation_weighs_the_divergence_by_the_share() -> None:
    whole, shared = section(), section(alpha="interpolation")
    torch.manual_seed(0)
    expected = penalty(prepared(whole), whole) / 2  # factor 0
    torch.manual_seed(0)
    torch.testing.assert_close(penalty(prepared(shared), shared), expected)


def test_the_teacher_gets_no_gradient() -> None:
    """The second block's divergence must not train the first copy through the block it is held to."""
    settings = section(freeze_blocks=False)
    model = prepared(settings)
    penalty(model, settings).backward()
    for block in models.parallel_blocks(model)[1:]:
        assert all(parameter.grad is None for parameter in block.pretrained.parameters())


def test_branches_are_kept_in_training_only_and_taken_once() -> None:
    settings = section()
    model = prepared(settings)
    penalty(model, settings)
    blocks = models.parallel_blocks(model)
    assert all(block.branches is None for block in blocks)
    model.eval()(TOKENS)
    assert all(block.branches is None for block in blocks)


@pytest.mark.parametrize("interpolator", sorted(INTERPOLATORS))
def test_copy_shares_are_means_over_real_tokens(interpolator: str) -> None:
    model = prepared(section(interpolator=interpolator, factor=0.7)).eval()
    shares = control_llm.copy_shares(model, [BATCH, BATCH])
    assert len(shares) == 2 and all(0 <= share <= 1 for share in shares)
    if interpolator in {"lerp", "slerp", "prog", "proj"}:
        assert shares == pytest.approx([0.66818777] * 2)
    if interpolator == "moe":
        assert all(round(share * TOKENS.numel(), 4).is_integer() for share in shares)  # choices are counted
    assert not any(block.interpolator._forward_hooks for block in models.parallel_blocks(model))


@pytest.mark.parametrize("interpolator", ["dlerp"])
def test_copy_shares_leave_padding_out(interpolator: str) -> None:
    model = prepared(section(interpolator=interpolator))
    documents = torch.zeros(2, 10, dtype=torch.int32)
    documents[1] = -1
    padded = Batch(TOKENS, TOKENS, BATCH.positions, documents, BATCH.sources)
    alone = Batch(TOKENS[:1], TOKENS[:1], BATCH.positions[:1], documents[:1], ["a"])
    assert control_llm.copy_shares(model, [padded]) == pytest.approx(control_llm.copy_shares(model, [alone]))


def test_two_processes_train_resume_and_save_under_deepspeed(
    control: SimpleNamespace, tmp_path: Path
) -> None:
    """Frozen and trained parts mixed, activation checkpointing, ZeRO-2 and ZeRO-3, against one process."""
    (tmp_path / "tokens").mkdir()
    control.toy["make_mixture"](tmp_path / "tokens")
    control.main(
        {"out": str(tmp_path / "one"), "folder": str(tmp_path / "tokens"), "engine": {}, "stop": None}
    )
    requests = [
        {
            "out": str(tmp_path / f"{name}-{stage}"),
            "folder": str(tmp_path / "tokens"),
            "engine": {"zero_stage": stage, "activation_checkpointing": True},
            "stop": stop,
        }
        for stage in (2, 3)
        for name, stop in (("whole", None), ("resumed", 5))
    ]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    launch([str(control.path), str(tmp_path / "requests.json")], Engine(processes=2))
    expected = load_file(tmp_path / "one" / "final.safetensors")
    start = {name: p.detach() for name, p in control.make_model().named_parameters()}
    for stage in (2, 3):
        whole, resumed = (
            load_file(tmp_path / f"{name}-{stage}" / "final.safetensors") for name in ("whole", "resumed")
        )
        assert whole.keys() == expected.keys() == start.keys()
        for name in start:
            assert torch.equal(whole[name], resumed[name])
            torch.testing.assert_close(whole[name], expected[name], rtol=1e-3, atol=1e-4)
            moved = not torch.equal(whole[name], start[name])
            assert moved == (".expanded." in name or ".interpolator." in name), name
