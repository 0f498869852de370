"""Checkpoints: whole or absent, and independent of how many processes wrote them.

A folder `step-N` holds weights and both moments of AdamW in float32 by parameter name, and a JSON
with the counters. There is no generator state in it: what a step draws depends on seed, step and
rank alone. The folder is written as `step-N.tmp`, sealed by a manifest of hashes, and renamed.
"""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workbench import storage
from workbench.errors import RunError
from workbench.training.state import State

FORMAT = 3
KEPT = 2  # whole checkpoints on disk: the newest, and one to fall back on


@dataclass(frozen=True)
class Checkpoint:
    """What training goes on from.

    Attributes:
        step: updates done.
        optimizer_step: updates that AdamW has counted.
        seconds: time spent so far.
        loss: of the last step, in nats a token.
        floor: the value before training of what the floor holds, and the step of the last sound probe.
        steering: what the curriculum goes on from; empty where it has no controller.
        settings: everything that the weights depend on, to refuse a checkpoint of another training.
        state: weights and moments by name, float32, on the CPU.
    """

    step: int
    optimizer_step: int
    seconds: float
    loss: float
    floor: tuple[float | None, int | None]
    steering: dict[str, Any]
    settings: dict[str, Any]
    state: State


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint to `folder` and drop the oldest ones beyond those kept and that of the sound probe.

    Raises:
        RunError: it could not be written; nothing of it is left behind.
    """
    final = _path(folder, checkpoint.step)
    partial = final.with_name(f"{final.name}.tmp")
    needed = sum(tensor.nbytes for table in checkpoint.state.values() for tensor in table.values())
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for kind, table in checkpoint.state.items():
            save_file(table, partial / f"{kind}.safetensors")
        counters = {key: value for key, value in vars(checkpoint).items() if key != "state"}
        storage.write_json(partial / "counters.json", counters)
        storage.seal(partial, format=FORMAT)
        shutil.rmtree(final, ignore_errors=True)  # a broken one of the same step that was passed over
        os.rename(partial, final)
        storage.sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(
            f"{final}: the checkpoint could not be written ({error}); it takes {needed / 1e6:.1f} MB: "
            "make room or make the folder writable, then start the same command again; it goes on from "
            "the last whole checkpoint"
        ) from error
    sound = checkpoint.floor[1]
    for old in _all(folder)[KEPT:]:
        if sound is None or old != _path(folder, sound):
            shutil.rmtree(old)


def newest(folder: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None; broken ones are passed over and named in a warning.

    Raises:
        RunError: the checkpoint belongs to a training with other settings.
    """
    for path in _all(folder):
        problem = _problem(path)
        if problem:
            warnings.warn(f"passing over the checkpoint {path.name}: {problem}", stacklevel=2)
            continue
        counters = storage.read_json(path / "counters.json")
        if differing := sorted(key for key in settings if counters["settings"].get(key) != settings[key]):
            raise RunError(
                f"{path}: made with other settings ({', '.join(differing)} differ); restore them, "
                f"or delete {folder} to train from the start"
            )
        return _read(path, counters)
    return None


def at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of one step of this training.

    Raises:
        RunError: it is not there, or not whole.
    """
    path = _path(folder, step)
    if problem := _problem(path):
        raise RunError(
            f"{path}: the checkpoint to roll back to cannot be used: {problem}; delete {folder} to train "
            "from the start"
        )
    return _read(path, storage.read_json(path / "counters.json"))


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}"


def _read(path: Path, counters: dict[str, Any]) -> Checkpoint:
    start, sound = counters.pop("floor")
    state = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    return Checkpoint(**counters, floor=(start, sound), state=state)


def _all(folder: Path) -> list[Path]:
    """Renamed checkpoints, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.suffix != ".tmp"), reverse=True)


def _problem(path: Path) -> str | None:
    try:
        problem = storage.unsound(path, hashes=True)
    except RunError as error:
        return str(error)
    if problem:
        return problem
    found = storage.read_json(path / storage.MANIFEST)["format"]
    return None if found == FORMAT else f"it has format {found}, this version reads {FORMAT}"
