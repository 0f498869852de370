"""Elastic weight consolidation: a pull weighted by what old text needs (arXiv 1612.00796, equation 3).

The penalty is lambda/2 sum_i F_i (theta_i - theta_0i)^2 with the diagonal of the Fisher information F.
Here F is the empirical one: the gradient is that of the likelihood of the text itself, not of text
sampled from the model. A sequence is one draw, so the gradient is squared after the sum over its tokens
and the mean is taken over sequences.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.data import Batch, attention_mask
from workbench.progress import progress
from workbench.recipe.methods import Ewc
from workbench.training import Anchor, is_first_process, processes, summed_cross_entropy


def anchor(importance: dict[str, Tensor], settings: Ewc) -> Anchor:
    """The pull for the loop; theta_0 are the weights that training starts with, F is what `fisher` gave."""
    return Anchor(settings.strength, importance)


def fisher(model: PreTrainedModel, batches: Iterable[Batch], sequences: int) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information of the weights that are trained.

    F_i = mean over sequences x of (d log p(x) / d theta_i)^2.

    Args:
        model: keeps its weights; goes to the accelerator where there is one.
        batches: old text; rows are the sequences.
        sequences: how many there will be, for the progress.

    Returns:
        By parameter name, shaped as the parameter, float32 on the CPU, at least 0.
    """
    device = processes.device()
    nn.Module.to(model, device)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in trained.items()}
    training, count = model.training, 0
    model.eval()
    with progress("Fisher information", sequences, "sequences", quiet=not is_first_process()) as advance:
        for batch in batches:
            for row in range(len(batch.tokens)):
                nats = _negative_log_likelihood(model, batch, row, device)
                gradients = torch.autograd.grad(nats, list(trained.values()), materialize_grads=True)
                for square, gradient in zip(total.values(), gradients, strict=True):
                    square.add_(gradient.float().square())
                count += 1
                advance(1)
    model.train(training)
    return {name: (square / count).cpu() for name, square in total.items()}


def _negative_log_likelihood(model: PreTrainedModel, batch: Batch, row: int, device: torch.device) -> Tensor:
    """Of one sequence, summed over its target tokens, in nats."""
    one = slice(row, row + 1)
    logits = model(
        input_ids=batch.tokens[one].to(device),
        position_ids=batch.positions[one].to(device),
        attention_mask=attention_mask(batch.documents[one].to(device)),
        use_cache=False,
    ).logits  # [1, L, V]
    return summed_cross_entropy(logits[0], batch.labels[row].to(device))
