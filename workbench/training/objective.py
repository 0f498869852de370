"""What is minimised: the cross entropy of the next token, summed, and what a method adds to it.

The sum, not the mean, because a micro-batch does not know how many target tokens the global batch
has; the loop divides. So the gradient is that of the mean over all target tokens of the global
batch, however it is cut into processes and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from workbench.data import NO_TARGET, Batch, attention_mask

Penalty = Callable[[nn.Module, Batch, Tensor], Tensor]  # of model, micro-batch and its logits [B, L, V]

LOGITS_AT_ONCE = 2**28  # float32 logits that are alive at a time: 1 GiB


class Objective(nn.Module):
    """A causal language model together with its loss, so that engine and compiler see one module."""

    def __init__(self, model: nn.Module, penalty: Penalty | None, *, autocast: bool) -> None:
        super().__init__()
        self.model = model
        self.penalty = penalty
        self.autocast = autocast

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of one micro-batch.

        Args:
            batch: on the device of the model.

        Returns:
            [B] cross entropy of each sequence summed over its target tokens, in nats, and the penalty, a
            scalar; float32.
        """
        device = batch.tokens.device
        with torch.autocast(device.type, torch.bfloat16) if self.autocast else nullcontext():
            logits = self.model(
                input_ids=batch.tokens,
                position_ids=batch.positions,
                attention_mask=attention_mask(batch.documents),
                use_cache=False,
            ).logits  # [B, L, V]
            nothing = torch.zeros((), device=device)
            penalty = self.penalty(self.model, batch, logits) if self.penalty else nothing
        nats = cross_entropies(logits.flatten(0, 1), batch.labels.flatten())
        return nats.view(batch.labels.shape).sum(1), penalty


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy in float32 at each position, 0 where nothing is predicted.

    Where the float32 copy of the logits would be large, it is made in pieces, and made again in the
    backward pass instead of kept.

    Args:
        logits: [N, V], any float dtype.
        labels: [N], int64; NO_TARGET where nothing is predicted.

    Returns:
        [N] in float32, nats.
    """
    return torch.cat(list(_pieces(_cross_entropies, logits, labels)))


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy in float32, summed over the positions that have a target; in pieces too.

    Args:
        logits: [N, V], any float dtype.
        labels: [N], int64; NO_TARGET where nothing is predicted.

    Returns:
        Scalar in float32, nats.
    """
    return cross_entropies(logits, labels).sum()


def in_pieces(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, other: Tensor) -> Tensor:
    """A loss that is a sum over positions, without more than LOGITS_AT_ONCE logits in float32.

    Args:
        loss: of some rows of both; a scalar.
        logits: [N, V].
        other: [N, ...], what they are compared with.
    """
    total = torch.zeros((), device=logits.device)
    for part in _pieces(loss, logits, other):
        total = total + part
    return total


def _pieces(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, other: Tensor) -> Iterator[Tensor]:
    if logits.numel() <= LOGITS_AT_ONCE:
        yield loss(logits, other)
        return
    rows = max(1, LOGITS_AT_ONCE // logits.shape[1])
    for piece, others in zip(logits.split(rows), other.split(rows), strict=True):
        yield checkpoint(loss, piece, others, use_reentrant=False)


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, ignore_index=NO_TARGET, reduction="none")
