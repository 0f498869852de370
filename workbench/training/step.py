"""One update: the gradient of a global batch, however it is cut, and the step that AdamW makes with it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
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
        nats: cross entropy of each source that was drawn, summed over its target tokens.
        targets: target tokens of these sources.
    """

    loss: float
    penalty: float
    norm: float
    digest: str
    nats: dict[str, float]
    targets: dict[str, int]

    @property
    def source_losses(self) -> dict[str, float]:
        """Cross entropy by source, in nats a target token."""
        return {name: nats / self.targets[name] for name, nats in self.nats.items()}


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
    batch = mixture.batch(step, ds.global_rank, ds.world_size)
    targets, digest = _agree(batch, mixture.names)
    total = sum(targets.values())
    nats, penalty = _backward(ds, batch, total, mixture.names)
    loss = sum(nats.values()) / total
    _refuse_unless_finite("loss", loss + penalty, step, mixture)
    norm = _descend(ds, rate, clip)
    _refuse_unless_finite("gradient norm", norm, step, mixture)
    there = {name: count for name, count in targets.items() if count}
    nats = {name: nats[name] for name in there}
    return Step(loss, penalty + state.anchor_penalty(ds), norm, digest, nats, there)


def digest(batch: Batch) -> str:
    """Of the sequences of a global batch, whatever their order."""
    return f"{_digests(batch) % 2**56:014x}"


def _backward(ds: Any, batch: Batch, targets: int, names: Sequence[str]) -> tuple[dict[str, float], float]:
    """Accumulate the gradient of the mean over the target tokens of the global batch.

    Returns:
        Cross entropy of the global batch in nats, summed by source, and the mean penalty.
    """
    world = ds.world_size
    device, rows = processes.device(), ds.train_micro_batch_size_per_gpu()
    accumulation = ds.gradient_accumulation_steps()
    membership = _membership(batch, names).to(device)  # [S, B]
    sums = torch.zeros(len(names) + 1, dtype=torch.float64, device=device)  # nats by source, penalties
    for index in range(accumulation):
        ds.set_gradient_accumulation_boundary(index == accumulation - 1)
        here = slice(index * rows, (index + 1) * rows)
        nats, penalty = ds(_rows(batch, here.start, here.stop, device))
        # DeepSpeed averages over the processes; `targets` counts those of all of them, so `world` undoes it.
        ds.backward(nats.sum() * (world / targets) + penalty / accumulation, scale_wrt_gas=False)
        sums[:-1] += membership[:, here] @ nats.detach().double()
        sums[-1] += penalty.detach().double()
    *by_source, penalties = processes.total(sums).tolist()
    return dict(zip(names, by_source, strict=True)), penalties / (accumulation * world)


def _membership(batch: Batch, names: Sequence[str]) -> Tensor:
    """Which sequence is of which source: [S, B] float64, 1 where it is; a sum by product is deterministic."""
    return torch.tensor([[name == source for source in batch.sources] for name in names]).double()


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
        sources = ", ".join(f"{name} ({count})" for name, count in mixture.drawn(step).items())
        raise NumericsError(
            f"step {step + 1}: the {what} is {value}; sequences of the batch by source: {sources}. "
            "The update was not made; lower learning_rate or clip, lengthen the warm-up, or look for "
            "damaged text in these sources"
        )


def _agree(batch: Batch, names: Sequence[str]) -> tuple[dict[str, int], str]:
    """Count the target tokens of the global batch by source, and digest it as no split changes it."""
    counts = (batch.labels != NO_TARGET).sum(1).double()  # [B]
    targets = (_membership(batch, names) @ counts).long()
    mine = torch.cat([targets, torch.tensor([_digests(batch) % 2**56])]).to(processes.device())
    *by_source, agreed = processes.total(mine).tolist()
    return dict(zip(names, by_source, strict=True)), f"{agreed % 2**56:014x}"


def _digests(batch: Batch) -> int:
    rows = batch.tokens.numpy()
    return sum(int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=7).digest()) for row in rows)


def _rows(batch: Batch, start: int, stop: int, device: torch.device) -> Batch:
    """Some sequences of a batch, on the device."""

    def part(value: Any) -> Any:
        return (
            value[start:stop].to(device, non_blocking=True)
            if isinstance(value, Tensor)
            else value[start:stop]
        )

    return Batch(**{field.name: part(getattr(batch, field.name)) for field in dataclasses.fields(batch)})
