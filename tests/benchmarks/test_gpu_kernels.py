"""The script for a GPU says why it cannot run, measures layer by layer, and goes on where it stopped."""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lowbit import bench
from lowbit.bench import Plan
from lowbit.bench.floor import Limits

SCRIPT = Path(__file__).with_name("gpu_kernels.py")
PLAN = Plan((("toy q", (64, 128)), ("toy down", (128, 64))), (4,), (1,), (), 64, 0.0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr("lowbit.bench.protocol.measure_limits", lambda device: Limits(1e9, 1e12, "float32"))
    monkeypatch.setattr(bench, "plan_for", lambda *arguments: PLAN)
    spec = importlib.util.spec_from_file_location("gpu_kernels", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layers(out: Path) -> set[str]:
    (file,) = out.glob("*.json")
    return {cell["layer"] for cell in json.loads(file.read_text())["cells"]}


def test_all_layers_are_in_one_file_or_those_after_one(script: ModuleType, tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path / "all", models=(), bits=(), after=None)
    assert script.measure(options, "cpu", time.monotonic() + 1000)
    assert layers(options.out) == {"toy q", "toy down"}
    options = argparse.Namespace(out=tmp_path / "rest", models=(), bits=(), after="toy q")
    assert script.measure(options, "cpu", time.monotonic() + 1000)
    assert layers(options.out) == {"toy down"}


def test_no_layer_is_begun_after_the_minutes(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(out=tmp_path, models=(), bits=(), after="toy q")
    assert script.measure(options, "cpu", time.monotonic() - 1)
    assert "--after 'toy q'" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_kernels.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 2 and "no CUDA device" in capsys.readouterr().err
