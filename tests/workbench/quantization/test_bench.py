"""The command measures, writes its files, and fails where a product is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lowbit.bench import Plan
from lowbit.bench.floor import Limits

from workbench import cli
from workbench.errors import RunError
from workbench.quantization.bench import bench


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan((("toy", (64, 128)),), (4,), (1, 2), (2,), 128, 0.0)
    monkeypatch.setattr("workbench.quantization.bench.plan_for", lambda *_: plan)
    monkeypatch.setattr("lowbit.bench.protocol.measure_limits", lambda _: Limits(1e9, 1e12, "float32"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_command_writes_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "--to", str(tmp_path / "results")])
    assert left.value.code == 0
    assert {file.suffix for file in (tmp_path / "results").iterdir()} == {".json", ".md", ".png", ".svg"}
    said = capsys.readouterr().out
    assert "toy" in said and "written:" in said


def test_a_wrong_product_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"ours": lambda weight: None if weight.table is not None else lambda x: x.new_zeros(len(x), 64)}
    monkeypatch.setattr("lowbit.bench.protocol.OURS", wrong)
    monkeypatch.setattr("workbench.quantization.bench.OURS", wrong)
    with pytest.raises(RunError, match="toy do not agree with the reference"):
        bench(folder=tmp_path)
    assert list(tmp_path.glob("*.json"))


def test_unknown_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    with pytest.raises(RunError, match="no shapes of 9b"):
        bench(["9b"], folder=tmp_path)
