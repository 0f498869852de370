"""The one training loop: batch, loss, backward, update, and what is written down about it.

Pretraining and continual pre-training are this loop on different mixtures. Whatever a step does is a
function of the weights, the moments, the seed and the step, so a run that was stopped goes on as if
it had not been.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from workbench.data import Mixture
from workbench.progress import progress
from workbench.recipe.schema import Engine
from workbench.recipe.training import TrainingStage
from workbench.training import checkpoint, processes, state
from workbench.training import engine as engines
from workbench.training.anchor import Anchor
from workbench.training.checkpoint import Checkpoint
from workbench.training.log import MetricsLog
from workbench.training.objective import Objective, Penalty
from workbench.training.probes import Probe, Watch
from workbench.training.schedule import learning_rate
from workbench.training.steering import Steering
from workbench.training.step import update
from workbench.training.throughput import Pace

ROWS = 2000  # most step rows in metrics.jsonl; a longer training logs every so many steps


@dataclass(frozen=True)
class TrainingResult:
    """What a training cost and where it ended.

    Attributes:
        steps: updates made, those included that were rolled back.
        tokens: tokens seen in them.
        seconds: wall time, that of interrupted tries up to their last checkpoint included.
        tokens_per_second: in all processes together, without start, probes and checkpoints.
        final_loss: cross entropy of the last batch before its update, in nats a target token.
        trainable_parameters: numbers that were trained.
        optimizer_bytes: of AdamW's state on this process.
        stopped: the sentence to tell when the floor or a dry source ended the training, else None.
    """

    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    final_loss: float
    trainable_parameters: int
    optimizer_bytes: int
    stopped: str | None


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
    anchor: Anchor | None = None,
    probe: Probe | None = None,
    steering: Steering | None = None,
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
        anchor: pulls the weights back to those that the model comes with.
        probe: measured at the steps of `probe_steps`, if `stage.probe_every` is set; called without
            gradients, in evaluation mode, on every process alike.
        steering: changes the weights of the mixture on the way.
        title: shown with the progress.

    Raises:
        NumericsError: loss or gradient is not finite; the update is not made.
        RunError: the folder cannot be written, or its checkpoints belong to another training.
        RecipeError: sizes of the batch or settings of the engine do not go together, or the floor names
            no score of the probe.
    """
    began = time.perf_counter()
    rank, world = processes.start()
    settings = _settings(mixture, stage, engine, seed)
    last = checkpoint.newest(out / "checkpoints", settings)
    if last:
        state.check_trainable(model, last.state)
        if steering:
            steering.restore(last.steering)
    watch = Watch(probe, stage, *(last.floor if last else ()))
    first, loss = (last.step, last.loss) if last else (0, math.nan)
    began -= last.seconds if last else 0.0
    dtype = model.dtype
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    ds = _engine(model, penalty, anchor, stage, engine, world, last)
    pace = Pace(model, stage, engine, processes.device(), world)
    log = MetricsLog(out / "metrics.jsonl", first) if rank == 0 else None

    def save(step: int) -> None:
        whole = state.gather(ds, keep=rank == 0)
        if rank == 0:
            seconds, floor = time.perf_counter() - began, (watch.start, watch.sound)
            steered = steering.state() if steering else {}
            made = Checkpoint(step, state.updates(ds), seconds, loss, floor, steered, settings, whole)
            checkpoint.write(out / "checkpoints", made)

    done = first
    if first == 0:
        watch.look(model, log, 0)
        if steering:
            steering.look(model, log, 0)
        if watch.rolls_back:
            save(0)
    with progress(title, stage.steps, "steps", done=first, quiet=rank > 0) as advance:
        while done < stage.steps and not watch.fallen and mixture.lasts(done):
            step, done = done, done + 1
            with pace:
                torch.manual_seed(_seed(seed, step, rank))
                rate = learning_rate(step, stage.steps, stage.learning_rate, stage.schedule)
                made = update(ds, mixture, step, rate, stage.clip)
            loss = made.loss
            if log and (done == stage.steps or done % math.ceil(stage.steps / ROWS) == 0):
                tokens = done * stage.batch_size * stage.sequence_length
                row: dict[str, Any] = {"step": done, "tokens": tokens, "loss": loss, "grad_norm": made.norm}
                extra = {"penalty": made.penalty} if penalty or anchor else {}
                row |= {"learning_rate": rate, **extra, **pace.figures()}
                row |= {"sources": mixture.drawn(step), "source_losses": made.source_losses}
                log.write(**row, **_weights(mixture, stage, step), batch=made.digest)
            watch.look(model, log, done)
            if steering:
                steering.count(made)
                steering.look(model, log, done)
            sound = watch.rolls_back and watch.sound == done
            if done < stage.steps and not watch.fallen and (sound or done % stage.checkpoint_every == 0):
                save(done)
            advance(1, loss=loss, rate=rate)

    if watch.fallen and watch.rolls_back:
        assert watch.sound is not None
        state.restore(ds, checkpoint.at(out / "checkpoints", watch.sound).state)
    held = state.optimizer_bytes(ds)
    _finish(ds, model, dtype, engine)
    if log:
        log.close()
    seconds, tokens = time.perf_counter() - began, done * stage.batch_size * stage.sequence_length
    speed = pace.tokens_per_second
    stopped = watch.fallen or _ran_dry(mixture, stage, done)
    return TrainingResult(done, tokens, seconds, speed, loss, trainable, held, stopped)


def _engine(
    model: PreTrainedModel,
    penalty: Penalty | None,
    anchor: Anchor | None,
    stage: TrainingStage,
    engine: Engine,
    world: int,
    last: Checkpoint | None,
) -> Any:
    """The DeepSpeed engine at the first step, or where the last checkpoint left off."""
    # Rounded where the masters will be, so that they begin at their anchor.
    rounded = torch.bfloat16 if engine.precision == "bfloat16" else torch.float32
    start = {
        name: p.detach().to(rounded) for name, p in model.named_parameters() if anchor and p.requires_grad
    }
    if last:
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in last.state["weight"].items():
                weights[name].data = weight.to(weights[name].device)
    model.train()
    if engine.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    objective = Objective(model, penalty, autocast=engine.precision == "autocast")
    ds = engines.build(objective, stage, engine, world, anchor)
    state.begin(ds, last.optimizer_step if last else 0, anchor, start)
    if last:
        state.restore(ds, last.state)
    return ds


def _weights(mixture: Mixture, stage: TrainingStage, step: int) -> dict[str, Any]:
    """Weights of a batch where they may change on the way, for the log."""
    if stage.curriculum is None and stage.when_dry != "redistribute":
        return {}
    dry = {"dry": list(mixture.dry(step))} if mixture.dry(step) else {}
    return {"weights": mixture.weights(step), **dry}


def _ran_dry(mixture: Mixture, stage: TrainingStage, done: int) -> str | None:
    """The sentence to tell when the sources ended the training."""
    if done == stage.steps or mixture.lasts(done):
        return None
    return (
        f"training ended at step {done} of {stage.steps}, for sources are dry: {mixture.whats_dry(done)}, "
        f"too few for another batch of {stage.batch_size}"
    )


def _finish(ds: Any, model: PreTrainedModel, dtype: torch.dtype, engine: Engine) -> None:
    """Leave an ordinary model behind, with its final weights and in evaluation mode."""
    state.release(ds, dtype)
    if engine.activation_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()


def _settings(mixture: Mixture, stage: TrainingStage, engine: Engine, seed: int) -> dict[str, Any]:
    """What the course of a training depends on; ZeRO and the number of processes only round differently."""
    fields = set(TrainingStage.model_fields) - {"checkpoint_every", "micro_batch_size", "mixture"}
    if stage.floor is None:
        fields -= {"probe_every", "probe_limit"}
    chosen = stage.model_dump(mode="json", include=fields)
    return {**chosen, "mixture": mixture.history[0][1], "precision": engine.precision, "seed": seed}


def _seed(seed: int, step: int, rank: int) -> int:
    """Of the generators in one step: no state to save, and no two steps or processes alike."""
    key = f"{seed} {step} {rank}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest())
