"""Full fine-tuning against Control LLM with 8 of 32 blocks: tokens a second, optimizer state, peak memory.

One LLaMA of 32 layers (hidden 128), batch (8 x 128) and precision (float32), through the workbench's own
training loop, with the divergence on, as shipped. Each contender runs in a process of its own, in turns,
so that a disturbance meets both; the speed is that of the median step.

    python tests/benchmarks/control_llm_speed.py [--steps 12] [--rounds 3] [--divergence mse]

Prints a table; the last line is JSON. Targets: at least 1.05 of full fine-tuning's tokens a second, at
most a quarter of its optimizer state.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = ("full", "control-llm")
BATCH, LENGTH, WARMUP = 8, 128, 2
# Of LLaMA-3-8B's proportions: layers, 3.5 times as wide inside, 4 query heads to a key-value head.
LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 32, 256, 896, 4, 1, 512
BLOCKS = 8

# Wall time on a busy machine measures its neighbours; BENCHMARK_CLOCK=cpu, with OMP_NUM_THREADS=1, does not.
clock = time.process_time if os.environ.get("BENCHMARK_CLOCK") == "cpu" else time.perf_counter


def make_mixture() -> Any:
    """A real mixture over a file of random tokens, as a recipe would make it."""
    from workbench import data, models

    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdefgh ", k=400)) for _ in range(300)]
    folder = Path(tempfile.mkdtemp())
    file = data.write_tokens(texts, models.train_tokenizer([], 262), folder, "text")
    return data.Mixture({"text": file}, {"text": 1.0}, 1, BATCH, LENGTH)


def contend(contender: str, steps: int, divergence: str) -> dict[str, Any]:
    """Train for some steps; when each began, and what it took."""
    from workbench import models, training
    from workbench.recipe.inputs import NewModel
    from workbench.recipe.methods import ControlLlm
    from workbench.recipe.schema import Engine
    from workbench.recipe.training import TrainingStage
    from workbench.retention import control_llm

    section = NewModel(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=KV_HEADS,
        context=LENGTH,
        tokenizer_sources=("text",),
    )
    model, penalty = models.new(section, seed=1), None
    if contender == "control-llm":
        settings = ControlLlm.model_validate({"blocks": BLOCKS, "divergence": divergence})
        model = models.expand(model, settings, seed=1)
        control_llm.freeze(model, settings)
        penalty = control_llm.divergence(settings)
    mixture, stamps = make_mixture(), []
    draw: Callable[..., Any] = mixture.batch

    def stamped(*where: int) -> Any:
        stamps.append(clock())
        return draw(*where)

    mixture.batch = stamped
    stage = TrainingStage(
        mixture={"text": 1.0},
        tokens=steps * BATCH * LENGTH,
        batch_size=BATCH,
        sequence_length=LENGTH,
        learning_rate=1e-3,
    )
    out = Path(tempfile.mkdtemp())
    result = training.train(model, mixture, stage, Engine(), 1, out, penalty=penalty, title=contender)
    return {
        "stamps": stamps,
        "trainable_parameters": result.trainable_parameters,
        "optimizer_bytes": result.optimizer_bytes,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def run(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """One contender in a process of its own."""
    command = [sys.executable, __file__, "--contender", contender]
    command += ["--steps", str(options.steps), "--divergence", options.divergence]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--divergence", choices=("none", "mse", "cosine"), default="mse")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(contend(options.contender, options.steps, options.divergence)))
        return

    import torch

    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    last: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for name in CONTENDERS:
            last[name] = run(name, options)
            seconds[name] += [b - a for a, b in itertools.pairwise(last[name].pop("stamps"))][WARMUP:]
    speed = {name: BATCH * LENGTH / statistics.median(values) for name, values in seconds.items()}
    print(f"{'':12} {'tokens/s':>9} {'trainable':>11} {'optimizer MB':>13} {'peak RSS MB':>12}")
    for name in CONTENDERS:
        row = last[name]
        print(
            f"{name:12} {speed[name]:9.0f} {row['trainable_parameters']:11,} "
            f"{row['optimizer_bytes'] / 1e6:13.2f} {row['peak_rss_bytes'] / 1e6:12.0f}"
        )
    faster = speed["control-llm"] / speed["full"]
    smaller = last["full"]["optimizer_bytes"] / last["control-llm"]["optimizer_bytes"]
    print(f"control-llm: {faster:.2f} of full's tokens/s (target: 1.05 or more)")
    print(f"control-llm: {smaller:.2f} times less optimizer state (target: 4 or more)")
    record = {
        "threads": torch.get_num_threads(),
        "clock": clock.__name__,
        "torch": torch.__version__,
        "divergence": options.divergence,
        **{name: {"tokens_per_second": speed[name], **last[name]} for name in CONTENDERS},
        "speed_ratio": faster,
        "optimizer_ratio": smaller,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
