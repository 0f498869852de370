"""The one training loop: batch, loss, backward, update, and what is written down about it.

Pretraining and continual pre-training are this loop on different mixtures. Whatever a step does is a
function of the weights, the moments, the seed and the step, so a run that was stopped goes on as if
it had not been.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.data import NO_TARGET, Batch, Mixture
from workbench.errors import NumericsError
from workbench.progress import progress
from workbench.recipe.schema import Engine, TrainingStage
from workbench.training import checkpoint, processes, state
from workbench.training import engine as engines
from workbench.training.checkpoint import Checkpoint
from workbench.training.log import MetricsLog
from workbench.training.objective import Objective, Penalty
from workbench.training.schedule import learning_rate
from workbench.training.throughput import Pace

Probe = Callable[[PreTrainedModel], dict[str, float]]

ROWS = 2000  # most step rows in metrics.jsonl; a longer training logs every so many steps


@dataclass(frozen=True)
class TrainingResult:
    """What a training cost and where it ended.

    Attributes:
        steps: updates.
        tokens: tokens seen.
        seconds: wall time, that of interrupted tries up to their last checkpoint included.
        tokens_per_second: in all processes together, without start, probes and checkpoints.
        final_loss: cross entropy of the last batch before its update, in nats a target token.
    """

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    final_loss: float


@processes.local_rank_set()
def train(
    model: PreTrainedModel,
    mixture: Mixture,
    stage: TrainingStage,
    engine: Engine,
    seed: int,
    out: Path,
    *,
    penalty: Penalty | None = None,
    probe: Probe | None = None,
    title: str,
) -> TrainingResult:
    """Train a model in place; every process calls this, the first one writes.

    A try that was stopped is gone on with: the newest whole checkpoint in `out/checkpoints` is
    loaded, and `out/metrics.jsonl` is cut back to it. Saving the model, and deleting the checkpoints
    after that, is the caller's.

    Args:
        model: a causal language model; only parameters that require gradients are trained. Afterwards it
            holds the final weights, whole, in the dtype that it came with.
        mixture: gives the batch of every step.
        stage: steps, batch, optimizer and schedule.
        engine: DeepSpeed settings.
        seed: of whatever a step draws.
        out: folder of the stage.
        penalty: added to the loss, averaged over the micro-batches of all processes.
        probe: measured before the first step, every `stage.probe_every` steps and after the last;
            called without gradients, in evaluation mode, on every process alike.
        title: shown with the progress.

    Raises:
        NumericsError: loss or gradient is not finite; the update is not made.
        RunError: the folder cannot be written, or its checkpoints belong to another training.
        RecipeError: sizes of the batch or settings of the engine do not go together.
    """
    began = time.perf_counter()
    rank, world = processes.start()
    settings = _settings(mixture, stage, engine, seed)
    last = checkpoint.newest(out / "checkpoints", settings)
    first, loss = (last.step, last.loss) if last else (0, math.nan)
    began -= last.seconds if last else 0.0
    dtype = model.dtype
    ds = _engine(model, penalty, stage, engine, world, last)
    pace = Pace(model, stage, engine, processes.device(), world)
    log = MetricsLog(out / "metrics.jsonl", first) if rank == 0 else None

    if first == 0:
        _measure(probe, model, log, step=0, tokens=0)
    with progress(title, stage.steps, "steps", done=first, quiet=rank > 0) as advance:
        for step in range(first, stage.steps):
            done, tokens = step + 1, (step + 1) * stage.batch_size * stage.sequence_length
            with pace:
                torch.manual_seed(_seed(seed, step, rank))
                batch = mixture.batch(step, rank, world)
                targets, digest = _agree(batch)
                rate = learning_rate(step, stage.steps, stage.learning_rate, stage.schedule)
                loss, penalized = _backward(ds, batch, targets, world)
                _refuse_unless_finite("loss", loss + penalized, step, mixture)
                norm = _update(ds, rate, stage.clip)
                _refuse_unless_finite("gradient norm", norm, step, mixture)
            if log and (done == stage.steps or done % math.ceil(stage.steps / ROWS) == 0):
                row = {"step": done, "tokens": tokens, "loss": loss, "grad_norm": norm, "learning_rate": rate}
                extra = {"penalty": penalized} if penalty else {}
                log.write(**row, **extra, **pace.figures(), sources=_drawn(mixture, step), batch=digest)
            if done == stage.steps or (stage.probe_every and done % stage.probe_every == 0):
                _measure(probe, model, log, step=done, tokens=tokens)
            if done < stage.steps and done % stage.checkpoint_every == 0:
                _save(ds, out / "checkpoints", done, time.perf_counter() - began, loss, settings)
            advance(1, loss=loss, rate=rate)

    _finish(ds, model, dtype, engine)
    if log:
        log.close()
    seconds = time.perf_counter() - began
    tokens = stage.steps * stage.batch_size * stage.sequence_length
    return TrainingResult(stage.steps, tokens, seconds, pace.tokens_per_second, loss)


def _engine(
    model: PreTrainedModel,
    penalty: Penalty | None,
    stage: TrainingStage,
    engine: Engine,
    world: int,
    last: Checkpoint | None,
) -> Any:
    """The DeepSpeed engine at the first step, or where the last checkpoint left off."""
    if last:
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in last.state["weight"].items():
                weights[name].data = weight.to(weights[name].device)
    model.train()
    if engine.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    objective = Objective(model, penalty, autocast=engine.precision == "autocast")
    ds = engines.build(objective, stage, engine, world)
    state.begin(ds, last.optimizer_step if last else 0)
    if last:
        state.restore(ds, last.state)
    return ds


def _backward(ds: Any, batch: Batch, targets: int, world: int) -> tuple[float, float]:
    """Accumulate the gradient of the mean over the target tokens of the global batch.

    Returns:
        Cross entropy of the global batch in nats a target token, and the mean penalty.
    """
    device, rows = processes.device(), ds.train_micro_batch_size_per_gpu()
    accumulation = ds.gradient_accumulation_steps()
    sums = torch.zeros(2, device=device)  # nats, penalties
    for index in range(accumulation):
        ds.set_gradient_accumulation_boundary(index == accumulation - 1)
        nats, penalty = ds(_rows(batch, index * rows, (index + 1) * rows, device))
        # DeepSpeed averages over the processes; `targets` counts those of all of them, so `world` undoes it.
        ds.backward(nats * (world / targets) + penalty / accumulation, scale_wrt_gas=False)
        sums += torch.stack([nats.detach(), penalty.detach().float()])
    nats_sum, penalty_sum = processes.total(sums).tolist()
    return nats_sum / targets, penalty_sum / (accumulation * world)


def _update(ds: Any, rate: float, clip: float) -> float:
    """Clip, and let AdamW make its step unless the gradient is not finite.

    Returns:
        Norm of the whole gradient before clipping, the same on every process.
    """
    for group in ds.optimizer.param_groups:
        group["lr"] = rate
    if ds.zero_optimization():  # clips by itself, and leaves the weights alone where the norm is not finite
        ds.step()
        return float(ds.get_global_grad_norm()) if ds.was_step_applied() else math.inf
    norm = float(nn.utils.clip_grad_norm_(ds.module.parameters(), clip))
    if math.isfinite(norm):
        ds.step()
    return norm


def _refuse_unless_finite(what: str, value: float, step: int, mixture: Mixture) -> None:
    if not math.isfinite(value):
        sources = ", ".join(f"{name} ({count})" for name, count in _drawn(mixture, step).items())
        raise NumericsError(
            f"step {step + 1}: the {what} is {value}; sequences of the batch by source: {sources}. "
            "The update was not made; lower learning_rate or clip, lengthen the warm-up, or look for "
            "damaged text in these sources"
        )


def _agree(batch: Batch) -> tuple[int, str]:
    """Count the target tokens of the global batch, and digest its sequences as no split changes it."""
    rows = batch.tokens.numpy()
    digests = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest()) for row in rows]
    mine = torch.tensor(
        [int((batch.labels != NO_TARGET).sum()), sum(digests) % 2**56], device=processes.device()
    )
    targets, digest = processes.total(mine).tolist()
    return targets, f"{digest % 2**56:014x}"


def _rows(batch: Batch, start: int, stop: int, device: torch.device) -> Batch:
    """Some sequences of a batch, on the device."""

    def part(value: Any) -> Any:
        return (
            value[start:stop].to(device, non_blocking=True)
            if isinstance(value, Tensor)
            else value[start:stop]
        )

    return Batch(**{field.name: part(getattr(batch, field.name)) for field in dataclasses.fields(batch)})


def _drawn(mixture: Mixture, step: int) -> dict[str, int]:
    """Sequences of one step's batch, by source."""
    before, after = mixture.counts(step), mixture.counts(step + 1)
    return {name: after[name] - before.get(name, 0) for name in after}


def _measure(
    probe: Probe | None, model: PreTrainedModel, log: MetricsLog | None, *, step: int, tokens: int
) -> None:
    if probe is None:
        return
    model.eval()
    with torch.no_grad():
        values = probe(model)
    model.train()
    if log:
        log.write(step=step, tokens=tokens, probe=values)


def _save(ds: Any, folder: Path, step: int, seconds: float, loss: float, settings: dict[str, Any]) -> None:
    """Write a checkpoint; all processes bring their parts to the first."""
    whole = state.gather(ds, keep=processes.is_first_process())
    if processes.is_first_process():
        checkpoint.write(folder, Checkpoint(step, state.updates(ds), seconds, loss, settings, whole))


def _finish(ds: Any, model: PreTrainedModel, dtype: torch.dtype, engine: Engine) -> None:
    """Leave an ordinary model behind, with its final weights and in evaluation mode."""
    state.release(ds, dtype)
    if engine.activation_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()


def _settings(mixture: Mixture, stage: TrainingStage, engine: Engine, seed: int) -> dict[str, Any]:
    """What the course of a training depends on; ZeRO and the number of processes only round differently."""
    fields = set(TrainingStage.model_fields) - {
        "checkpoint_every",
        "probe_every",
        "micro_batch_size",
        "mixture",
    }
    chosen = stage.model_dump(mode="json", include=fields)
    return {**chosen, "mixture": mixture.schedule[0][1], "precision": engine.precision, "seed": seed}


def _seed(seed: int, step: int, rank: int) -> int:
    """Of the generators in one step: no state to save, and no two steps or processes alike."""
    key = f"{seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest())
