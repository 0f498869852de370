"""Training on pairs by transformers' Trainer under DeepSpeed, with the habits of the one loop.

The Trainer makes the steps; what it would log, save and show by itself is off, and a callback does as the one
loop does: the same metrics.jsonl, the same progress, the same checkpoints. These are safetensors by parameter
name, so nothing pickled is ever written or read, and what goes on may have other processes than what was
stopped. Nothing is drawn at random in a step, and which pairs it sees is planned ahead, so a training that
went on ends where it would have ended.

Pairs are of many lengths, so `engine.compile` is left to the one loop: every length would be compiled anew.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from workbench.errors import NumericsError
from workbench.progress import Advance, console, progress
from workbench.safety.course import Course, Outcome, Part
from workbench.safety.trainer_arguments import arguments
from workbench.training import checkpoint, learning_rate, log, processes, state
from workbench.training.checkpoint import Checkpoint
from workbench.training.log import MetricsLog
from workbench.training.loop import ROWS

Row = dict[str, Any]
Watch = Callable[[Row], list[str]]  # looks at a row of the log, may add to it, and gives what to tell


class Scheduled(Trainer):
    """A Trainer whose learning rate follows a schedule of the workbench."""

    factor: Callable[[int], float]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule, by how many steps this Trainer has made."""
        if self.lr_scheduler is None:
            chosen: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(chosen, self.factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler


@processes.local_rank_set()
def train(
    course: Course,
    part: Part,
    model: PreTrainedModel,
    make: Callable[[Callable[..., Any]], Scheduled],
    watch: Watch | None = None,
) -> Outcome:
    """Train a model in place; every process calls this, the first one writes.

    A try that was stopped is gone on with. Afterwards the model holds the final weights, whole, in the dtype
    that it came with.

    Args:
        course: what all parts share.
        part: which of them.
        model: at its start, with what is trained requiring gradients.
        make: a Trainer for the rows of the course, of arguments that are made of a class and what it takes
            besides.
        watch: of every row that is logged, those included that an earlier try wrote.

    Raises:
        NumericsError: loss or gradient is not finite.
        RunError: the folder cannot be written, or its checkpoints belong to another training.
    """
    began = time.perf_counter()
    rank, world = processes.start()
    folder = course.out / "checkpoints" / part.name
    last = checkpoint.newest(folder, _settings(course, part))
    if last:
        state.check_trainable(model, last.state)
    done, dtype = last.step if last else 0, model.dtype
    size = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if last and done == part.steps:
        _put(model, last.state["weight"])
        return Outcome(last.seconds, (0.0, 0), last.loss, trainable, 0)
    if course.engine.precision != "bfloat16":
        model.float()
    with _apart():
        trainer: Any = make(partial(arguments, course, part, done, world, size))
        left = course.order[part.first + done : part.first + part.steps]
        trainer.train_dataset = trainer.train_dataset.select(left.ravel())
        schedule = course.stage.schedule
        trainer.factor = lambda n: learning_rate(min(done + n, part.steps - 1), part.steps, 1.0, schedule)
        trainer.remove_callback(PrinterCallback)
        with progress(course.title, part.steps, "steps", done=done, quiet=rank > 0) as advance:
            loop = _Loop(trainer, course, part, last, began, advance, watch)
            trainer.add_callback(loop)
            if last:
                _put(model, last.state["weight"])
            trainer.train()
        held = state.optimizer_bytes(loop.engine)
        loop.close()
        state.release(trainer.model_wrapped, dtype)
    if course.engine.activation_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    busy = loop.busy, int(course.tokens[part.first + part.steps - 1] - loop.tokens_before)
    return Outcome(loop.seconds(), busy, loop.loss, trainable, held, loop.told)


class _Loop(TrainerCallback):
    """What the one loop does around a step."""

    def __init__(
        self,
        trainer: Any,
        course: Course,
        part: Part,
        last: Checkpoint | None,
        began: float,
        advance: Advance,
        watch: Watch | None,
    ) -> None:
        self.trainer, self.course, self.part, self.last = trainer, course, part, last
        self.advance, self.watch = advance, watch
        self.done, self.loss = (last.step, last.loss) if last else (0, math.nan)
        self.began = began - (last.seconds if last else 0.0)
        self.started = self.busy = 0.0
        first = part.first + self.done
        self.tokens_before = int(course.tokens[first - 1]) if first else 0
        path = course.out / "metrics.jsonl"
        self.log = MetricsLog(path, first) if processes.is_first_process() else None
        self.told = [said for row in _logged(path, part, first) for said in (watch(row) if watch else [])]
        self.engine: Any = None

    def seconds(self) -> float:
        """Of this try and of those before it."""
        return time.perf_counter() - self.began

    def close(self) -> None:
        """Close the log."""
        self.busy = time.perf_counter() - self.started
        if self.log:
            self.log.close()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Begin AdamW's moments, or go on with them."""
        self.engine = _Seen(self.trainer.model_wrapped)
        state.begin(self.engine, self.last.optimizer_step if self.last else 0)
        if self.last:
            state.restore(self.engine, self.last.state)
        self.started = time.perf_counter()

    def on_log(self, *_: Any, **given: Any) -> None:
        """A step is over: write down how it was, and save where it is time to."""
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:  # the Trainer's own last words
            return
        self.done += 1
        self.loss, step, steps = logs["loss"], self.part.first + self.done, len(self.course.order)
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise NumericsError(f"step {step}: {name} is {logs[name]}; lower learning_rate")
        if step == steps or step % math.ceil(steps / ROWS) == 0:
            row = {"step": step, "tokens": int(self.course.tokens[step - 1]), **_told(logs)}
            row |= {"part": self.part.name} if self.part.name else {}
            for said in self.watch(row) if self.watch else []:
                self.told.append(said)
                console.print(f"{self.course.title}: {said}", highlight=False, soft_wrap=True)
            if self.log:
                self.log.write(**row)
        over = self.done == self.part.steps
        if (self.part.name and over) or (not over and self.done % self.course.stage.checkpoint_every == 0):
            self._save()
        self.advance(1, loss=self.loss, rate=logs["learning_rate"])

    def _save(self) -> None:
        first = processes.is_first_process()
        whole = state.gather(self.engine, keep=first)
        if first:
            settings, updates = _settings(self.course, self.part), state.updates(self.engine)
            made = Checkpoint(
                self.done, updates, self.seconds(), self.loss, (None, None), {}, settings, whole
            )
            checkpoint.write(self.course.out / "checkpoints" / self.part.name, made)


class _Seen:
    """A DeepSpeed engine around a bare model, as `training.state` sees one around an objective."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.module = SimpleNamespace(model=engine.module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _settings(course: Course, part: Part) -> dict[str, Any]:
    """What the course of a part depends on; ZeRO and the number of processes only round differently."""
    fields = {"weight_decay", "betas", "clip", "schedule", "batch_size", "sequence_length"}
    chosen = course.stage.model_dump(mode="json", include=fields)
    own = {"rate": part.rate, "steps": part.steps, "seed": course.seed}
    return {**chosen, **own, "precision": course.engine.precision, "pairs": len(course.rows)}


def _put(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Give a model the weights of a checkpoint, in whatever dtype and however partitioned it is."""
    import deepspeed  # late: see processes.start

    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            with deepspeed.zero.GatheredParameters([named[name]], modifier_rank=0):
                if named[name].numel():  # partitions of the other processes follow the first
                    named[name].copy_(weight)


def _told(logs: dict[str, float]) -> Row:
    """What of the Trainer's log is written down."""
    return {name: value for name, value in logs.items() if name not in ("epoch", "num_tokens", "step")}


def _logged(path: Path, part: Part, done: int) -> Iterator[Row]:
    """The rows of a part that an earlier try wrote and that stand."""
    return (row for row in log.read(path) if part.first < row["step"] <= done)


@contextmanager
def _apart() -> Iterator[None]:
    """Take back what a Trainer under DeepSpeed leaves in globals and the environment."""
    before = dict(os.environ)
    # Accelerate remarks that it leaves it to DeepSpeed to count micro-batches, as it should.
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)
    os.environ["TQDM_DISABLE"] = "1"  # TRL asks for it when it looks over the pairs with the reference
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(torch.get_num_threads())
    )  # or accelerate chooses, and says so
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
