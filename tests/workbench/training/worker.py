"""A toy training: a LLaMA of 40 thousand weights on two sources of very uneven documents.

As a script it runs one training in this process, or in as many as the launcher starts:
`worker.py REQUESTS.json`, a list with the settings of `run` and, optionally, `kill_at`: a step to die at,
`frozen`: beginnings of the names of parameters that are not trained, `strength` of an anchor, and `odd`:
add a parameter that divides among no two processes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from workbench import data, models, training
from workbench.recipe.inputs import NewModel
from workbench.recipe.schema import Engine
from workbench.recipe.training import TrainingStage

STEPS, BATCH, LENGTH = 6, 8, 32
SOURCES = {"short": 0.5, "long": 0.5}


def make_model() -> LlamaForCausalLM:
    section = NewModel(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        heads=4,
        kv_heads=2,
        context=LENGTH,
        tokenizer_sources=["short"],
    )
    return models.new(section, seed=1)


def make_mixture(folder: Path) -> data.Mixture:
    """Documents of 2 to 60 tokens in one source, a few of hundreds in the other; written once."""
    files = {}
    for name in SOURCES:
        if not (folder / name).exists():
            draw = random.Random(name)
            sizes = [draw.randint(0, 60) for _ in range(90)] if name == "short" else [700, 900, 20, 1500]
            texts = ["".join(draw.choices("abcdefgh ", k=size)) for size in sizes]
            data.write_tokens(texts, models.train_tokenizer([], 262), folder / name, name)
        files[name] = data.TokenFile(folder / name)
    return data.Mixture(files, SOURCES, seed=3, batch_size=BATCH, sequence_length=LENGTH)


def held_out(folder: Path) -> Callable[[torch.nn.Module], dict[str, float]]:
    """Mean loss of the first windows of each source."""

    def measure(model: torch.nn.Module) -> dict[str, float]:
        losses = {}
        for name in SOURCES:
            file = data.TokenFile(folder / name)
            rows = torch.tensor([file.tokens[i * LENGTH : (i + 1) * LENGTH].tolist() for i in range(8)])
            losses[name] = float(model(rows, labels=rows).loss)
        return losses

    return measure


def make_stage(**changes: Any) -> TrainingStage:
    settings = {
        "mixture": SOURCES,
        "tokens": STEPS * BATCH * LENGTH,
        "batch_size": BATCH,
        "sequence_length": LENGTH,
        "learning_rate": 3e-3,
        "checkpoint_every": 2,
        "probe_every": 1,
    }
    return TrainingStage.model_validate(settings | changes)


def run(
    folder: Path,
    out: Path,
    stage: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    at_step: Callable[[int], None] | None = None,
    frozen: tuple[str, ...] = (),
    odd: bool = False,
    **options: Any,
) -> tuple[LlamaForCausalLM, training.TrainingResult]:
    """Train the toy model; `at_step` is called after every step with the number of steps done."""
    model, done = make_model(), -1
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(frozen)))
    if odd:
        model.odd = torch.nn.Parameter(torch.arange(3.0))
        options["penalty"] = lambda model, batch, logits: model.odd.sub(1).square().sum()

    def probe(_: torch.nn.Module) -> dict[str, float]:
        nonlocal done
        done += 1
        if at_step:
            at_step(done)
        return {}

    mixture, section = make_mixture(folder), make_stage(**(stage or {}))
    if section.curriculum:
        measure = None if section.curriculum.kind == "bandit" else held_out(folder)
        options["steering"] = training.Steering(section.curriculum, section, mixture, measure, {})
    result = training.train(
        model,
        mixture,
        section,
        Engine.model_validate(engine or {}),
        1,
        out,
        title="toy",
        **({"probe": probe} | options),
    )
    return model, result


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows(out) if "loss" in row]


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def main(request: dict[str, Any]) -> None:
    out, kill_at = Path(request["out"]), request.get("kill_at")

    def die(done: int) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    options = {key: request[key] for key in ("stage", "engine", "frozen", "odd") if key in request}
    if "strength" in request:
        options["anchor"] = training.Anchor(request["strength"])
    model, _ = run(Path(request["folder"]), out, at_step=die, **options)
    if training.is_first_process():
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        save_file(weights, out / "final.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        main(one)
