"""Checkpoints are whole or passed over."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from workbench import storage
from workbench.errors import RunError
from workbench.training import checkpoint
from workbench.training.checkpoint import Checkpoint

SETTINGS = {"seed": 1, "learning_rate": 0.1}


def make(step: int, sound: int | None = None) -> Checkpoint:
    state = {kind: {"a": torch.full((40,), float(step))} for kind in ("weight", "exp_avg", "exp_avg_sq")}
    return Checkpoint(step, step, 1.5 * step, 2.0, (0.5, sound), {}, SETTINGS, state)


def same(a: Checkpoint | None, b: Checkpoint) -> bool:
    assert a is not None
    counters = ("step", "optimizer_step", "seconds", "loss", "floor", "settings")
    equal = all(torch.equal(a.state[kind]["a"], table["a"]) for kind, table in b.state.items())
    return equal and all(getattr(a, name) == getattr(b, name) for name in counters)


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path, SETTINGS) is None
    checkpoint.write(tmp_path, make(7))
    assert same(checkpoint.newest(tmp_path, SETTINGS), make(7))


def test_keeps_the_last_two(tmp_path: Path) -> None:
    for step in (2, 4, 100, 1000):
        checkpoint.write(tmp_path, make(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000100", "step-000001000"]
    assert same(checkpoint.newest(tmp_path, SETTINGS), make(1000))


def test_keeps_the_one_to_roll_back_to(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        checkpoint.write(tmp_path, make(step, sound=2))
    assert sorted(int(path.name[5:]) for path in tmp_path.iterdir()) == [2, 6, 8]
    assert same(checkpoint.at(tmp_path, 2), make(2, sound=2))
    with pytest.raises(RunError, match="roll back"):
        checkpoint.at(tmp_path, 4)


@pytest.mark.parametrize(
    "file", ["weight.safetensors", "exp_avg.safetensors", "counters.json", "MANIFEST.json"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_broken_one_is_passed_over_and_named(tmp_path: Path, file: str, damage: str) -> None:
    for step in (2, 4):
        checkpoint.write(tmp_path, make(step))
    path = tmp_path / "step-000000004" / file
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.warns(UserWarning, match="step-000000004"):
        found = checkpoint.newest(tmp_path, SETTINGS)
    assert same(found, make(2))
    checkpoint.write(tmp_path, make(4))  # takes the place of the broken one
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(checkpoint.newest(tmp_path, SETTINGS), make(4))


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, make(2))
    (tmp_path / "step-000000004.tmp").mkdir()
    (tmp_path / "step-000000004.tmp" / "weight.safetensors").write_bytes(b"half")
    assert same(checkpoint.newest(tmp_path, SETTINGS), make(2))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")]
)
def test_a_full_disk_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    checkpoint.write(tmp_path, make(2))

    def full(folder: Path, **_: object) -> None:
        raise error

    monkeypatch.setattr(storage, "seal", full)
    with pytest.raises(RunError, match="make room"):
        checkpoint.write(tmp_path, make(4))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002"]


def test_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, make(2))
    with pytest.raises(RunError, match=r"seed differ"):
        checkpoint.newest(tmp_path, SETTINGS | {"seed": 2})
