"""Deviation-aware distillation: a teacher's predictions count the more, the less certain they are.

The other half of DB-LLM (Chen, Lv et al., arXiv 2402.11960), whose exponent and weight were never
published. Our definition, in nats, as a mean over the target tokens t:

    penalty = distillation * mean_t (H_t / log V)^gamma * CE(p_teacher, p_student)

H_t is the entropy of the teacher's prediction and log V the largest that it can have, so that ambiguous
tokens count more; with gamma 0 all count alike. The loop's own cross entropy of the text is added with
weight 1. The penalty is not zero where the student equals the teacher: its gradient is.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from workbench.data import NO_TARGET, Batch
from workbench.recipe.quantization import DbLlm
from workbench.retention.distill import predictions
from workbench.training import Penalty, in_pieces


def penalty(teacher: PreTrainedModel, settings: DbLlm) -> Penalty:
    """The penalty for the loop.

    Args:
        teacher: the unquantized model, a copy of its own; goes to the student's device and dtype.
        settings: gamma and the weight of the distillation.
    """
    teacher.eval().requires_grad_(False)
    deviation = partial(_deviation, gamma=settings.gamma)

    def distillation(student: nn.Module, batch: Batch, logits: Tensor) -> Tensor:
        targets = batch.labels != NO_TARGET  # [B, L]
        taught = predictions(teacher, student, batch.tokens, batch.positions, batch.documents)  # [B, L, V]
        total = in_pieces(deviation, logits[targets], taught[targets])
        return settings.distillation * total / targets.sum().clamp(min=1)

    return distillation


def _deviation(logits: Tensor, taught: Tensor, gamma: float) -> Tensor:
    """(H / log V)^gamma CE(p_teacher, p_student) in nats, summed over positions; both [N, V]."""
    p = taught.float().softmax(-1)
    weight = (torch.special.entr(p).sum(-1) / math.log(p.shape[-1])).pow(gamma)  # [N]
    total: Tensor = weight @ functional.cross_entropy(logits.float(), p, reduction="none")
    return total
