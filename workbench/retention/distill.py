"""Distillation to the start: stay close to what the model predicted before (Li & Hoiem, arXiv 1606.09282).

The penalty is beta KL(p_start || p_theta), token by token over the whole vocabulary, as in knowledge
distillation (Hinton et al., arXiv 1503.02531) at temperature 1. Like the cross entropy it is a mean over
all target tokens; those of rows that are not concerned count 0. So beta weighs a token's divergence
against a token's cross entropy, however many old rows a micro-batch happens to hold.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from workbench.data import NO_TARGET, Batch, attention_mask
from workbench.recipe.methods import Distill
from workbench.training import Penalty, in_pieces


def penalty(teacher: PreTrainedModel, settings: Distill, old_sources: Collection[str]) -> Penalty:
    """The penalty for the loop.

    Args:
        teacher: the model of the start, a copy of its own; goes to the student's device and dtype.
        settings: beta, and which rows are concerned.
        old_sources: names of the sources of old text.
    """
    teacher.eval().requires_grad_(False)

    def divergence(student: nn.Module, batch: Batch, logits: Tensor) -> Tensor:
        targets = batch.labels != NO_TARGET  # [B, L]
        rows = [
            row for row, source in enumerate(batch.sources) if settings.text == "new" or source in old_sources
        ]
        if not rows:
            return torch.zeros((), device=logits.device)
        start = predictions(
            teacher, student, batch.tokens[rows], batch.positions[rows], batch.documents[rows]
        )  # [rows, L, V]
        here = targets[rows]
        total = in_pieces(_divergence, logits[rows][here], start[here])
        return settings.beta * total / targets.sum().clamp(min=1)

    return divergence


@torch.no_grad()
def predictions(
    teacher: PreTrainedModel, student: nn.Module, tokens: Tensor, positions: Tensor, documents: Tensor
) -> Tensor:
    """Logits [B, L, V] of a teacher, which goes to the student's device and dtype; the others are [B, L]."""
    nn.Module.to(teacher, tokens.device, next(student.parameters()).dtype)
    logits: Tensor = teacher(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=attention_mask(documents),
        use_cache=False,
    ).logits
    return logits


def _divergence(logits: Tensor, start: Tensor) -> Tensor:
    """KL(p_start || p) in nats, summed over positions; both [N, V]."""
    log_p, log_start = (values.float().log_softmax(-1) for values in (logits, start))
    return functional.kl_div(log_p, log_start, reduction="sum", log_target=True)
