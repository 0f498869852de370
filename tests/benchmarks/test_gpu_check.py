"""The check for a GPU says why it cannot run, counts what a step needs, and runs end to end on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from workbench import models
from workbench.recipe.methods import ControlLlm
from workbench.retention import control_llm
from workbench.training.throughput import flops_per_token

SCRIPT = Path(__file__).with_name("gpu_check.py")


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(str(path) for path in sys.path if path)
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_without_a_gpu_it_says_so_and_exits_with_2(tmp_path: Path) -> None:
    done = _run("--out", str(tmp_path))
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else object())
    assert (
        gpu_check.hindrance("cpu") == "missing: deepspeed; install what requirements.lock names (make setup)"
    )


def test_with_everything_trained_a_step_needs_what_palm_counts(gpu_check: ModuleType) -> None:
    model = gpu_check.make_model("tiny", "cpu")
    assert gpu_check.needed_flops(model, 128) == flops_per_token(model, 128)


def test_a_frozen_prefix_saves_its_backward(gpu_check: ModuleType) -> None:
    length, settings = 128, ControlLlm(blocks=8)
    model = gpu_check.make_model("tiny", "cpu")
    block = sum(weight.numel() for weight in model.model.layers[0].parameters() if weight.ndim == 2)
    head = model.lm_head.weight.numel()
    attention = model.config.hidden_size * length
    model = models.expand(model, settings, seed=1)
    control_llm.freeze(model, settings)
    # 16 layers, copies at 1, 3, ..., 15: blocks 0 and 1 run forward only, the copies train as well.
    forward, through = 24 * (2 * block + 4 * attention), 22 * (2 * block + 8 * attention)
    assert gpu_check.needed_flops(model, length) == forward + through + 8 * 2 * block + 4 * head


@pytest.mark.slow
def test_it_runs_end_to_end_on_a_small_shape(tmp_path: Path) -> None:
    sizes = ("--steps", "4", "--batch", "2", "--micro", "1", "--length", "32")
    done = _run("--shape", "tiny", "--device", "cpu", *sizes, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    assert record["versions"]["torch"] == torch.__version__
    for contender in ("control-llm", "trainer"):
        assert len(record[contender]["step_seconds"]) == 3
        assert record[contender]["tokens_per_second"] > 0
    assert record["control-llm"]["trainable_parameters"] < record["trainer"]["trainable_parameters"]
