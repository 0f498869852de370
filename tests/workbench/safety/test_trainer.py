"""What was stopped ends as if it had not been; the schedule is the recipe's; nothing is left behind."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from workbench.errors import NumericsError, RunError
from workbench.recipe.safety import Dpo
from workbench.recipe.schema import Engine
from workbench.recipe.training import Schedule
from workbench.safety import dpo, trainer
from workbench.safety.dpo import PairTrainer, prefer
from workbench.training import learning_rate, log

STEPS = 5


class StoppedError(Exception):
    """What stands for a kill."""


def weights(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one: LlamaForCausalLM, other: LlamaForCausalLM, tolerance: float = 0.0) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs)


@pytest.fixture
def taught(
    course: Callable[..., Any],
    tiny: Callable[[], LlamaForCausalLM],
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., LlamaForCausalLM]:
    monkeypatch.setattr(dpo, "LONGEST", 2)

    def teach(out: Path, **settings: Any) -> LlamaForCausalLM:
        model = tiny()
        prefer(model, tokenizer, course(out, STEPS, **settings), Dpo(beta=1.0))
        return model

    return teach


def test_a_training_that_was_stopped_ends_with_the_same_weights_and_the_same_log(
    taught: Callable[..., LlamaForCausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("deepspeed")  # which sets a variable of its own
    environment = dict(os.environ)
    whole = taught(tmp_path / "whole")
    assert dict(os.environ) == environment and not is_deepspeed_zero3_enabled()
    plain = trainer.MetricsLog.write

    def stop(self: Any, **row: Any) -> None:
        if row["step"] == 4:
            raise StoppedError
        plain(self, **row)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.MetricsLog, "write", stop)
        with pytest.raises(StoppedError):
            taught(tmp_path / "stopped")
    assert [path.name for path in (tmp_path / "stopped/checkpoints").iterdir()] == ["step-000000002"]
    assert not [path for path in (tmp_path / "stopped").rglob("*") if path.suffix in (".pt", ".pth", ".bin")]
    assert same(taught(tmp_path / "stopped"), whole)
    logs = [log.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert logs[0] == logs[1] and len(logs[0]) == STEPS
    with pytest.raises(RunError, match="other settings \\(rate differ"):
        taught(tmp_path / "stopped", rate=1e-4)


def test_other_engines_train_alike(taught: Callable[..., LlamaForCausalLM], tmp_path: Path) -> None:
    schedule = Schedule(kind="wsd", warmup=0.4, decay=0.4)
    engines = {"plain": Engine(), "zero3": Engine(zero_stage=3), "autocast": Engine(precision="autocast")}
    models = {
        name: taught(tmp_path / name, engine=engine, schedule=schedule, micro_batch_size=2)
        for name, engine in engines.items()
    }
    assert same(models["zero3"], models["plain"], 1e-5)
    rows = {name: log.read(tmp_path / name / "metrics.jsonl") for name in engines}
    rates = [learning_rate(step, STEPS, 1e-2, schedule) for step in range(STEPS)]
    for name, model in models.items():
        assert {weight.dtype for weight in weights(model).values()} == {torch.float32}
        assert [row["learning_rate"] for row in rows[name]] == pytest.approx(rates)
        plain = [row["loss"] for row in rows["plain"]]
        assert [row["loss"] for row in rows[name]] == pytest.approx(plain, abs=0.05)
        assert all(row["grad_norm"] > 0 for row in rows[name])


def test_a_loss_that_is_no_number_ends_the_training(
    taught: Callable[..., LlamaForCausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PairTrainer._compute_loss
    monkeypatch.setattr(PairTrainer, "_compute_loss", lambda *given: plain(*given) * math.nan)
    with pytest.raises(NumericsError, match="step 1: loss is nan; lower learning_rate"):
        taught(tmp_path)
