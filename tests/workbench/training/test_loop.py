"""The loop's promises: what a step computes, and that nothing but the step count says how far it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from workbench import data
from workbench.errors import NumericsError, RunError
from workbench.recipe.training import Schedule
from workbench.training import learning_rate


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def reference(toy: SimpleNamespace, tokens: Path) -> tuple[torch.nn.Module, list[float]]:
    """The same training in plain torch: the mean over all target tokens, AdamW, clipping, cosine."""
    model, mixture, stage = toy.make_model().train(), toy.make_mixture(tokens), toy.make_stage()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adamw, losses = torch.optim.AdamW(groups, betas=(0.9, 0.95)), []
    for step in range(toy.STEPS):
        batch = mixture.batch(step)
        logits = model(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            attention_mask=data.attention_mask(batch.documents),
        ).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(step, toy.STEPS, stage.learning_rate, Schedule())
        adamw.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_agrees_with_plain_torch(toy: SimpleNamespace, tokens: Path, tmp_path: Path, zero_stage: int) -> None:
    expected, losses = reference(toy, tokens)
    model, result = toy.run(tokens, tmp_path, engine={"zero_stage": zero_stage})
    assert toy.losses(tmp_path) == pytest.approx(losses, rel=1e-5)
    assert result.final_loss == toy.losses(tmp_path)[-1]
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(model)[name], weight, rtol=1e-4, atol=2e-5)
    x = torch.arange(LENGTH := 8)[None]
    assert model(x).logits.shape == (1, LENGTH, 300) and not model.training
    assert model.lm_head.weight is model.model.embed_tokens.weight  # still tied


@pytest.mark.parametrize(
    "engine",
    [
        {"zero_stage": 2, "offload": "optimizer"},
        {"zero_stage": 3, "offload": "parameters"},
        {"activation_checkpointing": True},
    ],
    ids=str,
)
def test_memory_settings_change_no_number(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path, engine: dict[str, Any]
) -> None:
    toy.run(tokens, tmp_path, engine=engine)
    assert toy.losses(tmp_path) == pytest.approx(toy.losses(plain), rel=1e-5)


@pytest.mark.parametrize("precision", ["autocast", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_bfloat16_stays_close_to_float32(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path, precision: str, zero_stage: int
) -> None:
    model, _ = toy.run(tokens, tmp_path, engine={"precision": precision, "zero_stage": zero_stage})
    assert toy.losses(tmp_path) == pytest.approx(toy.losses(plain), rel=5e-3)
    assert toy.losses(tmp_path) != toy.losses(plain)
    assert model.dtype == torch.float32  # that of the model that was handed in, from the float32 masters


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_micro_batches_change_only_the_rounding(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path, zero_stage: int
) -> None:
    """Documents are so uneven that a mean of micro-batch means would be off by far more."""
    toy.run(tokens, tmp_path, stage={"micro_batch_size": 2}, engine={"zero_stage": zero_stage})
    one, four = toy.rows(plain), toy.rows(tmp_path)
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in four if key in r] == pytest.approx(
            [r[key] for r in one if key in r], rel=2e-5
        )
    assert [r.get("batch") for r in four] == [r.get("batch") for r in one]


@pytest.mark.parametrize(
    "engine", [{}, {"zero_stage": 2}, {"zero_stage": 3}, {"precision": "bfloat16"}], ids=str
)
def test_resume_is_bit_identical(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, engine: dict[str, Any]
) -> None:
    whole, _ = toy.run(tokens, tmp_path / "whole", engine=engine)

    def stop(done: int) -> None:
        if done == 5:  # after the checkpoint of step 4, with one step to lose
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path / "halves", engine=engine, at_step=stop)
    assert (tmp_path / "halves" / "checkpoints" / "step-000000004").is_dir()
    halves, result = toy.run(tokens, tmp_path / "halves", engine=engine)
    assert same(weights(halves), weights(whole))
    assert [row["step"] for row in toy.rows(tmp_path / "halves") if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert toy.losses(tmp_path / "halves") == toy.losses(tmp_path / "whole")
    assert result.steps == 6


def test_goes_on_under_another_zero_stage(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path
) -> None:

    def stop(done: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path, engine={"zero_stage": 2}, at_step=stop)
    toy.run(tokens, tmp_path, engine={"zero_stage": 3})
    assert toy.losses(tmp_path) == pytest.approx(toy.losses(plain), rel=1e-5)


def test_killed_training_ends_bit_identical(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path
) -> None:
    out, request = tmp_path / "out", tmp_path / "requests.json"
    request.write_text(json.dumps([{"folder": str(tokens), "out": str(out), "kill_at": 3}]))
    assert subprocess.run([sys.executable, toy.path, request], check=False).returncode == -9
    model, _ = toy.run(tokens, out)
    assert same(load_file(plain / "final.safetensors"), weights(model))
    assert [row["step"] for row in toy.rows(out) if "loss" in row] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_refuses_a_loss_that_is_no_number(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, zero_stage: int
) -> None:
    def poison(model: torch.nn.Module, batch: data.Batch, logits: torch.Tensor) -> torch.Tensor:
        return torch.tensor(float("nan"))

    with pytest.raises(NumericsError, match=r"step 1: the loss is nan; .* short \(4\), long \(4\)"):
        toy.run(tokens, tmp_path, engine={"zero_stage": zero_stage}, penalty=poison)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_refuses_a_gradient_that_is_no_number(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, zero_stage: int
) -> None:
    """The square root has the value 0 and an infinite slope at 0: the loss is sound, the gradient is not."""

    def poison(model: Any, batch: data.Batch, logits: torch.Tensor) -> torch.Tensor:
        return (logits - logits.detach()).square().sum().sqrt()

    with pytest.raises(NumericsError, match="step 1: the gradient norm is"):
        toy.run(tokens, tmp_path, engine={"zero_stage": zero_stage}, penalty=poison)


def test_penalty_is_averaged_over_micro_batches(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    def decay(model: torch.nn.Module, batch: data.Batch, logits: torch.Tensor) -> torch.Tensor:
        return 0.01 * sum((p.square().sum() for p in model.parameters()), torch.zeros(()))

    for name, micro in (("one", 8), ("four", 2)):
        toy.run(tokens, tmp_path / name, stage={"micro_batch_size": micro}, penalty=decay)
    one, four = toy.rows(tmp_path / "one"), toy.rows(tmp_path / "four")
    assert one[1]["penalty"] > 0
    for key in ("loss", "penalty", "grad_norm"):
        assert [r[key] for r in four if key in r] == pytest.approx(
            [r[key] for r in one if key in r], rel=2e-5
        )


def test_frozen_parameters_stay(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    from workbench import training
    from workbench.recipe.schema import Engine

    model = toy.make_model()
    frozen = model.model.layers[0].requires_grad_(False)
    before = {name: weight.detach().clone() for name, weight in frozen.named_parameters()}
    for stage in (0, 2, 3):
        engine = Engine(zero_stage=stage)
        training.train(model, toy.make_mixture(tokens), toy.make_stage(), engine, 1, tmp_path, title="frozen")
        after = dict(model.model.layers[0].named_parameters())
        assert same(before, {name: weight.detach() for name, weight in after.items()})
        assert not any(weight.requires_grad for weight in after.values())


def test_probes_begin_before_the_first_step(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    seen = []

    def probe(model: torch.nn.Module) -> dict[str, float]:
        seen.append((model.training, torch.is_grad_enabled()))
        return {"count": float(len(seen))}

    toy.run(tokens, tmp_path, stage={"probe_every": 4}, probe=probe)
    probes = [(row["step"], row["probe"]["count"]) for row in toy.rows(tmp_path) if "probe" in row]
    assert probes == [(0, 1.0), (1, 2.0), (4, 3.0), (6, 4.0)]
    assert set(seen) == {(False, False)}


def test_settings_of_another_training_are_refused(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path, at_step=stop)
    with pytest.raises(RunError, match="learning_rate differ"):
        toy.run(tokens, tmp_path, stage={"learning_rate": 1e-3})


def test_another_trainable_set_is_refused(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path, at_step=stop, frozen=("model.layers.0.",))
    with pytest.raises(RunError, match=r"model\.layers\.0\.\S+: frozen in the checkpoint, \[32, 32\] now"):
        toy.run(tokens, tmp_path)


def test_tells_what_was_trained(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    model, result = toy.run(tokens, tmp_path, frozen=("model.embed_tokens", "model.layers.0."))
    left = sum(p.numel() for p in (*model.model.layers[1].parameters(), *model.model.norm.parameters()))
    assert result.trainable_parameters == left
    assert result.optimizer_bytes == pytest.approx(8 * left, rel=0.01)  # two moments in float32
    assert result.stopped is None


@pytest.mark.slow
def test_compiled_is_the_same_training(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path
) -> None:
    toy.run(tokens, tmp_path, engine={"compile": True})
    assert toy.losses(tmp_path) == pytest.approx(toy.losses(plain), rel=1e-4)
