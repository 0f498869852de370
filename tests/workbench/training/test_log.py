"""metrics.jsonl after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import RunError
from workbench.training import log
from workbench.training.log import MetricsLog


def write(path: Path, start: int, stop: int) -> None:
    rows = MetricsLog(path, start)
    for step in range(start + 1, stop + 1):
        rows.write(step=step, loss=1.0 / step)
    rows.close()


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    rows = MetricsLog(tmp_path / "m.jsonl", 0)
    rows.write(step=1, loss=0.5)
    assert log.read(tmp_path / "m.jsonl") == [{"step": 1, "loss": 0.5}]
    rows.close()


def test_is_cut_back_to_the_step_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 0, 5)
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # what a killed process leaves
    write(path, 3, 6)
    assert [row["step"] for row in log.read(path)] == [1, 2, 3, 4, 5, 6]


def test_starts_empty_at_step_0(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 0, 5)
    write(path, 0, 2)
    assert [row["step"] for row in log.read(path)] == [1, 2]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    rows = MetricsLog(tmp_path / "m.jsonl", 0)
    rows.close()
    rows._file = full.open("a", buffering=1)
    with pytest.raises(RunError, match="make room"):
        rows.write(step=1)
