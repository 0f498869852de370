"""Two processes under DeepSpeed's launcher train as one does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.errors import RunError
from workbench.recipe.schema import Engine
from workbench.training import launch


def test_two_processes_equal_one(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    requests = [
        {"folder": str(tokens), "out": str(tmp_path / str(stage)), "engine": {"zero_stage": stage}}
        for stage in (2, 3)
    ]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    launch([str(toy.path), str(tmp_path / "requests.json")], Engine(processes=2))
    one = toy.rows(plain)
    for stage in ("2", "3"):
        two = toy.rows(tmp_path / stage)
        assert [row.get("batch") for row in two] == [row.get("batch") for row in one]  # same data, same order
        for key in ("loss", "grad_norm"):
            expected = [row[key] for row in one if key in row]
            assert [row[key] for row in two if key in row] == pytest.approx(expected, rel=2e-5)
        assert (tmp_path / stage / "final.safetensors").is_file()
    assert not (tmp_path / "extensions").exists()  # nothing was compiled


def test_failure_of_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(RunError, match="2 processes ended with exit code 3"):
        launch(["-m", "some.module", "a b; c"], Engine(processes=2))
    assert commands[0][-3:] == ["--module", "some.module", "a b; c"]
