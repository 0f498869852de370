"""One CUDA device: Control LLM on a LLaMA-3-8B shape beside full fine-tuning with the Hugging Face Trainer.

The workbench trains an 8B shape with random weights and 8 copies beside blocks (concat, Lerp, MSE) in
bfloat16 under ZeRO-2 with activation checkpointing. The Trainer fine-tunes the largest of 8B, 3B and 1B
that fits, at the same batch and sequence length. Each runs in a process of its own.

    python tests/benchmarks/gpu_check.py [--steps 10] [--batch 8] [--micro 2] [--length 4096]

Writes recipes/results/gpu-check-<device>-<date>.json and prints it. Exits with 2 where it cannot run.
`--shape tiny --device cpu` runs the same code in seconds, for tests; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "recipes" / "results"
SHAPES = {
    "8b": "meta-llama/Llama-3.1-8B",
    "3b": "meta-llama/Llama-3.2-3B",
    "1b": "meta-llama/Llama-3.2-1B",
    "tiny": None,
}
CONTENDERS = ("control-llm", "trainer")
PACKAGES = ("torch", "transformers", "deepspeed", "accelerate", "triton")
BLOCKS, WARMUP = 8, 2
CANNOT, OUT_OF_MEMORY = 2, 75  # exit codes


def hindrance(device: str) -> str | None:
    """Why the check cannot run here; None if it can."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device: torch sees none; run this on a machine with a GPU and a CUDA build of torch"
    missing = [name for name in ("deepspeed", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        return f"missing: {' and '.join(missing)}; install what requirements.lock names (make setup)"
    return None


def make_model(shape: str, device: str) -> Any:
    """A LLaMA of a published shape with random bfloat16 weights, made on the device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from workbench import models

    hub = SHAPES[shape]
    config = (
        models.published(hub)
        if hub
        else LlamaConfig(
            hidden_size=64,
            intermediate_size=224,
            num_hidden_layers=16,
            num_attention_heads=4,
            num_key_value_heads=1,
            vocab_size=512,
            tie_word_embeddings=False,
        )
    )
    torch.manual_seed(1)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def make_mixture(batch: int, length: int) -> Any:
    """A real mixture over a file of random tokens, as a recipe would make it."""
    from workbench import data, models

    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdefgh ", k=length)) for _ in range(4 * batch)]
    file = data.write_tokens(texts, models.train_tokenizer([], 262), Path(tempfile.mkdtemp()), "text")
    return data.Mixture({"text": file}, {"text": 1.0}, 1, batch, length)


def needed_flops(model: Any, length: int) -> float:
    """Floating-point operations of a training step for one token, without those that a frozen part saves.

    Two a weight of a linear forward, two for the gradient of its input where something below is trained,
    two for the gradient of its weight where that is trained; full attention as in PaLM (arXiv 2204.02311).
    Activations that are computed again do not count. With everything trained this is PaLM's 6 N.
    """
    from torch import nn

    def depth(name: str) -> int:
        return int(found[1]) if (found := re.match(r"model\.layers\.(\d+)\.", name)) else 10**6

    embeddings = model.get_input_embeddings().weight.requires_grad
    trained = [depth(name) for name, weight in model.named_parameters() if weight.requires_grad]
    first = -1 if embeddings else min(trained)
    width = model.config.num_attention_heads * model.config.head_dim
    total = 0.0
    for name, module in model.named_modules():
        inside = any(weight.requires_grad for weight in module.parameters())
        backward = depth(name) > first or inside
        if isinstance(module, nn.Linear):
            total += module.weight.numel() * (2 + 2 * backward + 2 * module.weight.requires_grad)
        elif name.endswith(".self_attn"):
            total += width * length * (4 + 8 * backward)
    return total


def run_control_llm(options: argparse.Namespace, stamp: Callable[[], None]) -> Any:
    """Train copies beside frozen blocks through the workbench's loop."""
    from workbench import models, training
    from workbench.recipe.methods import ControlLlm
    from workbench.recipe.schema import Engine
    from workbench.recipe.training import TrainingStage
    from workbench.retention import control_llm

    settings = ControlLlm(blocks=BLOCKS)
    model = models.expand(make_model(options.shape, options.device), settings, seed=1)
    control_llm.freeze(model, settings)
    mixture = make_mixture(options.batch, options.length)
    draw: Callable[..., Any] = mixture.batch

    def stamped(*where: int) -> Any:
        stamp()
        return draw(*where)

    mixture.batch = stamped
    stage = TrainingStage(
        mixture={"text": 1.0},
        tokens=options.steps * options.batch * options.length,
        batch_size=options.batch,
        micro_batch_size=options.micro,
        sequence_length=options.length,
        learning_rate=5e-5,
    )
    engine = Engine(zero_stage=2, precision="bfloat16", activation_checkpointing=True)
    out, penalty = Path(tempfile.mkdtemp()), control_llm.divergence(settings)
    training.train(model, mixture, stage, engine, 1, out, penalty=penalty, title="control-llm")
    return model


def run_trainer(options: argparse.Namespace, stamp: Callable[[], None]) -> Any:
    """Fine-tune all weights with the Hugging Face Trainer."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Stamp(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            stamp()

    model = make_model(options.shape, options.device)
    mixture = make_mixture(options.batch, options.length)
    batches = [mixture.batch(step).tokens for step in range(options.steps)]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=options.micro,
        gradient_accumulation_steps=options.batch // options.micro,
        max_steps=options.steps,
        learning_rate=5e-5,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=True,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=options.device == "cpu",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    rows = [{"input_ids": row, "labels": row} for batch in batches for row in batch]
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Stamp()]).train()
    return model


def contend(options: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in this process."""
    import torch

    from workbench.training.throughput import peak_flops

    stamps: list[float] = []
    cuda = options.device == "cuda"

    def stamp() -> None:
        if cuda:
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())

    run = dict(zip(CONTENDERS, (run_control_llm, run_trainer), strict=True))[options.contender]
    try:
        model = run(options, stamp)
    except torch.cuda.OutOfMemoryError as error:
        print(error, file=sys.stderr)
        raise SystemExit(OUT_OF_MEMORY) from error
    stamp()
    seconds = [b - a for a, b in itertools.pairwise(stamps)]
    # The last interval also holds what comes after training.
    speed = options.batch * options.length / statistics.median(seconds[WARMUP:-1])
    peak, source = peak_flops(torch.device(options.device), torch.bfloat16)
    return {
        "shape": options.shape,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable_parameters": sum(w.numel() for w in model.parameters() if w.requires_grad),
        "step_seconds": seconds[:-1],
        "tokens_per_second": speed,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "flops_per_token": needed_flops(model, options.length),
        "mfu": speed * needed_flops(model, options.length) / peak,
        "mfu_of": f"{peak:.3g} FLOP/s, {source}",
    }


def measured(contender: str, shapes: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A contender at the first shape that fits, each try in a process of its own."""
    for shape in shapes:
        command = [sys.executable, __file__, "--contender", contender, "--shape", shape]
        for name in ("device", "steps", "batch", "micro", "length"):
            command += [f"--{name}", str(getattr(options, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return {**result, "too_large": shapes[: shapes.index(shape)]}
        if done.returncode != OUT_OF_MEMORY:
            raise SystemExit(f"{contender} at {shape} failed:\n{done.stderr}")
    return {"too_large": shapes}


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="8b", help="of Control LLM's base")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=10, help="4 or more")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step")
    parser.add_argument("--micro", type=int, default=2, help="sequences of a forward pass")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a sequence")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(contend(options)))
        return
    if reason := hindrance(options.device):
        print(f"gpu-check: {reason}", file=sys.stderr)
        raise SystemExit(CANNOT)

    import torch

    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    smaller = ["tiny"] if options.shape == "tiny" else ["8b", "3b", "1b"]
    record = {
        "date": today,
        "device": device,
        "device_memory_bytes": torch.cuda.get_device_properties(0).total_memory
        if options.device == "cuda"
        else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "settings": {name: getattr(options, name) for name in ("steps", "batch", "micro", "length")},
        "control-llm": measured("control-llm", [options.shape], options),
        "trainer": measured("trainer", smaller, options),
    }
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    path = options.out / f"gpu-check-{slug}-{today}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
    print(json.dumps(record, indent=2))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
