"""One update: the gradient of a global batch, however it is cut, and the step that AdamW makes with it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.data import NO_TARGET, Batch, Mixture
from workbench.errors import NumericsError
from workbench.training import processes, state


@dataclass(frozen=True)
class Step:
    """What is known about an update.

    Attributes:
        loss: cross entropy of the global batch before the update, in nats a target token.
        penalty: what the method added to it, that of an anchor included.
        norm: of the whole gradient of loss and Penalty before clipping.
        digest: of the sequences of the global batch, the same however they are split.
    """

    loss: float
    penalty: float
    norm: float
    digest: str


def update(ds: Any, mixture: Mixture, step: int, rate: float, clip: float) -> Step:
    """Make the update that turns `step` into `step + 1`; every process calls this.

    Args:
        ds: a DeepSpeedEngine.
        mixture: gives the batch.
        step: updates done so far.
        rate: learning rate.
        clip: largest norm of the gradient.

    Raises:
        NumericsError: loss or gradient is not finite; the update is not made.
    """
    world = ds.world_size
    batch = mixture.batch(step, ds.global_rank, world)
    targets, digest = _agree(batch)
    loss, penalty = _backward(ds, batch, targets, world)
    _refuse_unless_finite("loss", loss + penalty, step, mixture)
    norm = _descend(ds, rate, clip)
    _refuse_unless_finite("gradient norm", norm, step, mixture)
    return Step(loss, penalty + state.anchor_penalty(ds), norm, digest)


def drawn(mixture: Mixture, step: int) -> dict[str, int]:
    """Sequences of one step's batch, by source."""
    before, after = mixture.counts(step), mixture.counts(step + 1)
    return {name: after[name] - before.get(name, 0) for name in after}


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


def _descend(ds: Any, rate: float, clip: float) -> float:
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
        sources = ", ".join(f"{name} ({count})" for name, count in drawn(mixture, step).items())
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
