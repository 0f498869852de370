"""Killed in the middle of any stage, the same command ends with the very bits of an uninterrupted run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from workbench import storage

PATIENCE_S = 240.0


def command(recipe: Path, runs: Path) -> subprocess.Popen[bytes]:
    """The tiny recipe with a checkpoint after every step of cpt, so that there is something to go on from."""
    overrides = "stages.cpt.checkpoint_every=1 stages.cpt.tokens=8192 stages.base.tokens=16384"
    arguments = [
        sys.executable,
        "-m",
        "workbench.cli",
        "--runs",
        str(runs),
        "run",
        str(recipe),
        "--set",
        overrides,
    ]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when(seen: Callable[[], bool], recipe: Path, runs: Path) -> None:
    """Start the run and kill -9 it as soon as something is seen."""
    process = command(recipe, runs)
    deadline = time.monotonic() + PATIENCE_S
    while not seen():
        assert process.poll() is None, f"the run ended first: {process.communicate()[1].decode()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def run_of(runs: Path) -> Path:
    return next(runs.glob("tiny--*"))


def partial(runs: Path, stage: str, pattern: str) -> Callable[[], bool]:
    """Whether the unfinished folder of a stage holds something."""
    return lambda: any(
        link.resolve().suffix == ".partial" and any(link.glob(pattern))
        for link in runs.glob(f"tiny--*/stages/{stage}")
    )


def evaluating(runs: Path) -> bool:
    """Whether one task of a row has been answered, and the row is not finished."""
    return any(runs.glob(".store/*.partial/retained.facts.json"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_in_every_stage_the_weights_are_bit_identical(tiny_recipe: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert command(tiny_recipe, whole).wait() == 0
    kill_when(partial(broken, "00-pretrain-base", "checkpoints/step-*"), tiny_recipe, broken)
    kill_when(partial(broken, "01-cpt-cpt-replay", "checkpoints/step-*"), tiny_recipe, broken)
    kill_when(partial(broken, "02-quantize-gptq-w4", "*"), tiny_recipe, broken)
    kill_when(lambda: evaluating(broken), tiny_recipe, broken)
    assert command(tiny_recipe, broken).wait() == 0
    for stage in sorted(path.name for path in (run_of(whole) / "stages").iterdir()):
        expected = load_file(run_of(whole) / "stages" / stage / "model" / "model.safetensors")
        found = load_file(run_of(broken) / "stages" / stage / "model" / "model.safetensors")
        assert expected.keys() == found.keys()
        assert all(bool((expected[name] == found[name]).all()) for name in expected), stage
    scores = [storage.read_json(run_of(runs) / "sheet.json")["rows"] for runs in (whole, broken)]
    assert [row["metrics"] for row in scores[0]] == [row["metrics"] for row in scores[1]]
