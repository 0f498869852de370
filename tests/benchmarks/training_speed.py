"""Tokens a second of the training loop, of a bare torch loop and of the Hugging Face Trainer, side by side.

One model (1 M LLaMA), batch (16 x 128) and precision (float32), with and without compilation. Each
contender runs in a process of its own, in turns, so that a disturbance meets all of them; the figure
is the median step. The bare loop does what a step needs and nothing else: forward with plain causal
attention, loss, backward, clipping, AdamW. The Trainer runs with logging, saving and evaluation off.

    python tests/benchmarks/training_speed.py [--steps 30] [--rounds 3]

Prints a table; the last line is JSON. Targets: at least 0.9 of bare torch, 1.2 of the Trainer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = ("workbench", "torch", "Trainer")
BATCH, LENGTH, VOCABULARY, WARMUP = 16, 128, 1024, 5

# Wall time on a busy machine measures its neighbours; BENCHMARK_CLOCK=cpu, with OMP_NUM_THREADS=1, does not.
clock = time.process_time if os.environ.get("BENCHMARK_CLOCK") == "cpu" else time.perf_counter
LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 5, 128, 352, 4, 2


def make_model() -> Any:
    from workbench import models
    from workbench.recipe.inputs import NewModel

    section = NewModel(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=KV_HEADS,
        context=LENGTH,
        tokenizer_sources=["text"],
    )
    return models.new(section, seed=1)


def make_mixture() -> Any:
    """A real mixture over two files of random tokens, as a recipe would make it."""
    import random

    from workbench import data, models

    folder, draw = Path(tempfile.mkdtemp()), random.Random(0)
    tokenizer = models.train_tokenizer([], 262)
    files = {}
    for name in ("a", "b"):
        texts = ["".join(draw.choices("abcdefgh ", k=400)) for _ in range(500)]
        files[name] = data.write_tokens(texts, tokenizer, folder / name, name)
    return data.Mixture(files, {"a": 0.7, "b": 0.3}, 1, BATCH, LENGTH)


def time_workbench(steps: int, compiled: bool) -> list[float]:
    from workbench import training
    from workbench.recipe.schema import Engine
    from workbench.recipe.training import TrainingStage

    mixture, stamps = make_mixture(), []
    draw: Callable[..., Any] = mixture.batch

    def stamped(*where: int) -> Any:
        stamps.append(clock())
        return draw(*where)

    mixture.batch = stamped
    stage = TrainingStage(
        mixture={"a": 0.7, "b": 0.3},
        tokens=steps * BATCH * LENGTH,
        batch_size=BATCH,
        sequence_length=LENGTH,
        learning_rate=1e-3,
    )
    engine = Engine(compile=compiled)
    training.train(make_model(), mixture, stage, engine, 1, Path(tempfile.mkdtemp()), title="workbench")
    return stamps


def time_torch(steps: int, compiled: bool) -> list[float]:
    import torch
    from torch.nn import functional

    model, mixture, stamps = make_model().train(), make_mixture(), []
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def loss_of(tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens, use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    objective = torch.compile(loss_of) if compiled else loss_of
    for step in range(steps):
        stamps.append(clock())
        batch = mixture.batch(step)
        objective(batch.tokens, batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
    return stamps


def time_trainer(steps: int, compiled: bool) -> list[float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    stamps: list[float] = []

    class Stamp(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            stamps.append(clock())

    mixture = make_mixture()
    batches = [mixture.batch(step).tokens for step in range(steps)]
    rows = [{"input_ids": row, "labels": row} for batch in batches for row in batch]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        torch_compile=compiled,
        use_cpu=os.environ.get("CUDA_VISIBLE_DEVICES") == "",
        bf16=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model=make_model(), args=arguments, train_dataset=rows, callbacks=[Stamp()]).train()
    return stamps


def step_seconds(contender: str, steps: int, compiled: bool) -> list[float]:
    """Seconds of each step but the first few, measured in a process of its own."""
    command = [sys.executable, __file__, "--contender", contender, "--steps", str(steps)]
    command += ["--compile"] if compiled else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr}")
    stamps = json.loads(done.stdout.splitlines()[-1])
    return [b - a for a, b in itertools.pairwise(stamps)][WARMUP:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run = dict(zip(CONTENDERS, (time_workbench, time_torch, time_trainer), strict=True))[
            options.contender
        ]
        print(json.dumps(run(options.steps, options.compile)))
        return

    import torch

    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "clock": clock.__name__,
        "torch": torch.__version__,
    }
    for compiled in (False, True):
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):
            for name in CONTENDERS:
                seconds[name] += step_seconds(name, options.steps, compiled)
        speed = {name: BATCH * LENGTH / statistics.median(values) for name, values in seconds.items()}
        kind = "compiled" if compiled else "eager"
        ratios = {f"of {name}": speed["workbench"] / speed[name] for name in CONTENDERS[1:]}
        for name, value in speed.items():
            print(f"{kind:9} {name:10} {value:10.0f} tokens/s")
        print(f"{kind:9} workbench  " + ", ".join(f"{value:.2f} {name}" for name, value in ratios.items()))
        record[kind] = {"tokens_per_second": speed, **ratios}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
