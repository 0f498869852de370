"""What the mixture costs of a training step: rows, quota, curriculum and packing, beside the arithmetic.

The step is that of a LLaMA of 101 M parameters (12 layers of width 768, vocabulary of 32,000, tied) on a
global batch of 32 x 1024 tokens. Its arithmetic is counted (6 operations a parameter and token, attention
besides) and divided by what this machine's largest matrix products reach in float32; a real step is slower.
Four sources under a linear schedule, one of them a part drawn anew in each pass, one limited; every step
asks for batch, weights, counts and end, as the loop does. A second table has 64 sources.

    python tests/benchmarks/mixture_speed.py [--steps 300]

Prints a table; the last line is JSON. Target: under 1 % of the step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from workbench import data, storage
from workbench.recipe.curricula import Reading
from workbench.recipe.training import TrainingStage

BATCH, LENGTH, TOKENS = 32, 1024, 4_000_000
LAYERS, HIDDEN, PARAMETERS = 12, 768, 101e6
MATRIX, REPEATS = 2048, 5


def make_files(folder: Path, sources: int) -> dict[str, data.TokenFile]:
    """Random tokens in documents of 700 tokens on average, all sources on one file's worth of disk each."""
    draw, files = np.random.default_rng(0), {}
    for name in (f"s{i}" for i in range(sources)):
        count = TOKENS // sources
        starts = np.unique(np.append(draw.integers(1, count, count // 700), [0, count]))
        (folder / name).mkdir()
        draw.integers(0, 32_000, count).astype("<u2").tofile(folder / name / "tokens.bin")
        np.ones(count, "<u2").tofile(folder / name / "bytes.bin")
        starts.astype("<i8").tofile(folder / name / "documents.bin")
        facts = {"name": name, "tokens": count, "documents": len(starts) - 1, "bytes": count}
        storage.write_json(folder / name / "tokens.json", {**facts, "dtype": "uint16", "tokenizer": "none"})
        files[name] = data.TokenFile(folder / name)
    return files


def make_mixture(files: dict[str, data.TokenFile], steps: int) -> data.Mixture:
    first = {name: 1 / len(files) for name in files}
    last = dict(zip(files, np.arange(1, len(files) + 1) / sum(range(len(files) + 1)), strict=True))
    stage = TrainingStage.model_validate(
        {
            "mixture": first,
            "curriculum": {"kind": "linear", "points": [{"tokens": steps * BATCH * LENGTH, "mixture": last}]},
            "tokens": steps * BATCH * LENGTH,
            "batch_size": BATCH,
            "sequence_length": LENGTH,
            "learning_rate": 1e-3,
        }
    )
    reading = {"s0": Reading(tokens=10 * LENGTH, resample="dynamic"), "s1": Reading(epochs=1000.0)}
    plan = data.plan(stage, first, dict.fromkeys(files, TOKENS))
    return data.Mixture(files, first, 1, BATCH, LENGTH, plan=plan, reading=reading, when_dry="redistribute")


def seconds_of_mixture(mixture: data.Mixture, steps: int) -> float:
    start = time.perf_counter()
    for step in range(steps):
        assert mixture.lasts(step)
        mixture.batch(step)
        mixture.drawn(step)
        mixture.weights(step)
    return (time.perf_counter() - start) / steps


def seconds_of_step() -> float:
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    per_token = 6 * PARAMETERS + 6 * LAYERS * HIDDEN * LENGTH
    return per_token * BATCH * LENGTH * min(times) / (2 * MATRIX**3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    step = seconds_of_step()
    found: dict[str, float | int] = {"steps": steps, "threads": torch.get_num_threads(), "step_seconds": step}
    print(f"arithmetic of a step: {step:.2f} s")
    for sources in (4, 64):
        with tempfile.TemporaryDirectory() as folder:
            mixture = make_mixture(make_files(Path(folder), sources), steps)
            cost = seconds_of_mixture(mixture, steps)
        found[f"mixture_ms_{sources}"] = 1e3 * cost
        print(f"{sources:3d} sources: {1e3 * cost:.2f} ms a step, {cost / step:.3%}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
