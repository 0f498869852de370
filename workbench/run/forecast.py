"""Forecast of a run before it starts: parameters, tokens, memory, disk and time of every variant.

Memory of training follows the accounting of ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3) for
weights, gradients and AdamW, and counts the activations of a LLaMA block as they are kept for the
backward pass (method of Korthikanti et al., arXiv 2205.05198, section 4, without the attention matrix,
which scaled dot-product attention does not keep). Time comes from a short probe of the real shapes on
this machine; where the model cannot be probed here, no time is given.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch
from rich import box
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from workbench import data, models
from workbench.errors import ModelError, RunError
from workbench.quantization import Plan, allocation, check_group_size, expected_bits, linear_shapes, tuning
from workbench.recipe.inputs import Model
from workbench.recipe.quantization import ADAPTED, CALIBRATED, TUNED, UNGROUPED
from workbench.recipe.quantize import Quantize
from workbench.recipe.safety import PAIRWISE, PATCHING, Safety
from workbench.recipe.schema import Engine
from workbench.recipe.training import Continued, Pretrain, TrainingStage
from workbench.stages.blueprint import architecture, in_training
from workbench.stages.job import Job

PROBE_STEPS = 3
CHECKPOINTS = 2  # whole ones that a training keeps
TAUGHT = ("distill", "db-llm")  # methods with a teacher
PROBE_SHARE_OF_MEMORY = 0.25
LESS_MEMORY = (
    "Use a machine with more, more processes under engine.zero_stage 3, engine.offload, a smaller "
    "micro_batch_size, or engine.activation_checkpointing"
)
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Forecast:
    """What one variant will take: memory of one process, and seconds or None where nothing was probed."""

    variant: str
    kind: str
    parameters: int
    trainable: int
    tokens: int
    memory_bytes: int
    disk_bytes: int
    seconds: float | None


def forecast(jobs: list[Job], *, probe: bool = False) -> list[Forecast]:
    """Forecast every variant of a recipe; finished ones cost nothing any more.

    Raises:
        ModelError: the group size of a quantize stage does not divide the model's linears.
        RecipeError: a budget of bits is below what the smallest widths take.
    """
    return [_forecast(job, probe) for job in jobs]


def refuse(forecasts: list[Forecast], folder: Path) -> None:
    """Stop before any work where the machine is too small.

    Raises:
        RunError: a variant needs more memory than one device has, or the run more disk than is free.
    """
    memory, device = _device_memory()
    for entry in forecasts:
        if entry.memory_bytes > memory:
            remedy = LESS_MEMORY if entry.trainable else "Use a machine with more"
            raise RunError(
                f"{entry.variant}: {entry.kind} of {entry.parameters:,} parameters needs about "
                f"{_size(entry.memory_bytes)} per process; {device} has {_size(memory)}. {remedy}"
            )
    needed = sum(entry.disk_bytes for entry in forecasts)
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise RunError(
            f"{folder}: this run writes about {_size(needed)}, free on that disk is {_size(free)}; make room "
            "(`workbench clean` shows what old runs take) or run on another disk"
        )


def table(forecasts: list[Forecast], seeds: int) -> Table:
    """The forecast for people, one line per variant and a line of totals; all of it once a seed."""
    shown = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title="forecast" if seeds == 1 else f"forecast of one of {seeds} seeds",
        caption="time from a short probe on this machine; - where none was possible",
    )
    shown.add_column("variant", no_wrap=True)
    for column in ("weights", "trained", "tokens", "memory", "disk", "time"):
        shown.add_column(column, justify="right", no_wrap=True)
    for f in forecasts:
        shown.add_row(
            f.variant,
            _short(f.parameters),
            _short(f.trainable),
            _short(f.tokens),
            _size(f.memory_bytes),
            _size(f.disk_bytes),
            _duration(f.seconds),
        )
    seconds = [f.seconds for f in forecasts if f.seconds is not None]
    shown.add_section()
    shown.add_row(
        "all",
        "",
        "",
        _short(sum(f.tokens for f in forecasts)),
        _size(max(f.memory_bytes for f in forecasts)),
        _size(sum(f.disk_bytes for f in forecasts)),
        _duration(sum(seconds)) + ("" if len(seconds) == len(forecasts) else " +"),
    )
    return shown


@cache
def configuration(model: Model) -> PretrainedConfig:
    """The model's configuration, without its weights.

    Raises:
        ModelError: a hub model that is not of the LLaMA-3 family and cannot be reached.
    """
    if model.new:
        return models.configuration(model.new)
    if model.path:
        return models.load_config(data.resolve(model.path))
    assert model.hub
    if known := models.published(model.hub):
        return known
    try:
        fetched: PretrainedConfig = AutoConfig.from_pretrained(
            model.hub, revision=model.revision, trust_remote_code=False
        )
        return fetched
    except OSError as error:
        raise ModelError(
            f"model.hub: the configuration of {model.hub} could not be fetched: {error}"
        ) from error


def _forecast(job: Job, probe: bool) -> Forecast:
    model, stage = job.origin, job.variant.stage
    config = configuration(model)
    finished = architecture(job, config)
    parameters, trainable = _count(finished), 0
    weights = parameters * DTYPE_BYTES[model.dtype]
    tokens, memory, disk, seconds = 0, weights, 0, None
    if isinstance(stage, Pretrain | Continued | Safety):
        loop = in_training(job, config)
        trainable = sum(p.numel() for p in loop.parameters() if p.requires_grad)
        tokens, seconds = _course(job, probe)
        memory = training_memory(_count(loop), trainable, loop.config, stage, job.recipe.engine)
        memory += _extra_memory(job.variant.method, parameters, trainable, DTYPE_BYTES[model.dtype])
        if job.variant.method in PAIRWISE:  # a pair has two answers
            memory += training_memory(0, 0, loop.config, stage, job.recipe.engine)
            seconds = 2 * seconds if seconds else None
        disk = CHECKPOINTS * 12 * trainable + 4 * parameters
    elif isinstance(stage, Quantize):
        shapes = linear_shapes(finished)
        plan = Plan(stage.at(job.variant.group_size), job.variant.bits or 0, job.recipe.seed)
        if job.variant.method not in UNGROUPED:
            check_group_size(shapes, plan.stage.group_size)
        if stage.allocation:
            allocation.sizes(job.variant.method, plan.stage, plan.bits, shapes)
            disk = allocation.budget(plan.bits, shapes) // 8
        else:
            disk = sum(expected_bits(job.variant.method, shape, plan) for shape in shapes.values()) // 8
        disk += (parameters - sum(rows * columns for rows, columns in shapes.values())) * DTYPE_BYTES[
            model.dtype
        ]
        if stage.calibration and job.variant.method in CALIBRATED:
            tokens = stage.calibration.sequences * stage.calibration.sequence_length
            memory += 2 * tokens * config.hidden_size * 4 + 3 * config.intermediate_size**2 * 4
        if stage.tuning and job.variant.method in TUNED:
            trainable = sum(
                tuning.num_trainable(job.variant.method, shape, plan.stage) for shape in shapes.values()
            )
            tokens, seconds = _course(job, probe)
            held = parameters + (trainable if job.variant.method in ADAPTED else 0)
            memory = training_memory(held, trainable, config, stage.tuning, job.recipe.engine)
            memory += _extra_memory(job.variant.method, parameters, trainable, DTYPE_BYTES[model.dtype])
            disk += CHECKPOINTS * 12 * trainable
    if job.store.has(job.fingerprint):
        disk, seconds = 0, 0.0
    return Forecast(job.variant.name, job.variant.kind, parameters, trainable, tokens, memory, disk, seconds)


def _course(job: Job, probe: bool) -> tuple[int, float | None]:
    """Tokens of a training, and seconds where they can be probed."""
    stage = job.training_stage
    tokens = stage.steps * stage.batch_size * stage.sequence_length
    rate = _training_speed(job.origin, stage.sequence_length) if probe else None
    return tokens, tokens / rate / job.recipe.engine.processes if rate else None


def training_memory(
    parameters: int, trainable: int, config: PretrainedConfig, stage: TrainingStage, engine: Engine
) -> int:
    """Bytes that one process holds at the peak of a training step."""
    mixed = engine.precision == "bfloat16"
    weights, gradients = (2, 2) if mixed else (4, 4)
    optimizer = 12 if mixed else 8
    n = engine.processes
    if engine.offload != "none":
        optimizer = 0
    state = parameters * weights / (n if engine.zero_stage >= 3 else 1)
    state += trainable * gradients / (n if engine.zero_stage >= 2 else 1)
    state += trainable * optimizer / (n if engine.zero_stage >= 1 else 1)
    micro = stage.micro_batch_size or max(stage.batch_size // n, 1)
    positions = micro * stage.sequence_length
    element = 4 if engine.precision == "float32" else 2
    head = config.hidden_size // config.num_attention_heads
    block = 6 * config.hidden_size + 2 * head * config.num_key_value_heads + 4 * config.intermediate_size
    layers = config.num_hidden_layers
    kept = layers * config.hidden_size + block if engine.activation_checkpointing else layers * block
    logits = 3 * 4 * config.vocab_size  # float32 logits, their log-softmax and its gradient
    return int(state + positions * (kept * element + logits))


def _extra_memory(method: str, parameters: int, trainable: int, element: int) -> int:
    """Bytes that a method holds besides: weights of the start, their importance or scores, or a teacher."""
    extra = {
        "l2sp": 4 * trainable,
        "ewc": 8 * trainable,
        PATCHING: 4 * parameters,
        **dict.fromkeys(TAUGHT, element * parameters),
    }
    return extra.get(method, 0)


def _count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@cache
def _training_speed(model: Model, length: int) -> float | None:
    """Training tokens per second of one process here, or None where the model does not fit a probe."""
    memory, _ = _device_memory()
    if models.count_parameters(configuration(model)) * 16 > PROBE_SHARE_OF_MEMORY * memory:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        probe = AutoModelForCausalLM.from_config(configuration(model)).to(device)
        batch = torch.randint(probe.config.vocab_size, (4, length), device=device)
    best = float("inf")
    for _ in range(PROBE_STEPS):
        start = time.perf_counter()
        probe(input_ids=batch, labels=batch).loss.backward()
        probe.zero_grad()
        best = min(best, time.perf_counter() - start)
    return batch.numel() / best


def _device_memory() -> tuple[int, str]:
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory, torch.cuda.get_device_name(0)
    return psutil.virtual_memory().total, "this machine"


def _short(count: int) -> str:
    """A number to three digits, such as "8.03B"; nothing for none."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g}{unit}"
    return str(count or "")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
