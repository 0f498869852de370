"""Training a MoGU (arXiv 2405.14488, section 3): the responders one by one, then the routers.

An instruction has two answers, an affirming and a rejecting one; CE is the cross entropy of an answer.

    glad responder       L = CE(affirming) / CE(rejecting)
    unwilling responder  L = CE(rejecting) / CE(affirming)
    routers              L = CE(y|x) + lambda [ mean (a - t)^2 + mean (b - (1 - t))^2 ]

t is 1 where the instruction is malicious and 0 where it is benign; means are over layers and tokens. A ratio
is lowered without end by an ever worse answer below the line, so that CE counts up to a ceiling only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from workbench.data import Batch
from workbench.errors import DataError
from workbench.models.mogu import MoguModel, projections

Part = Literal["unwilling", "glad", "routers"]

BALANCE = 2.0  # lambda of the released code
FLOOR = 0.05  # nats a token; below it a ratio would be all rounding


def train_only(model: MoguModel, part: Part) -> None:
    """Let one responder, or the routers, answer and be trained, and nothing else.

    Args:
        model: changed in place; in router training it keeps the shares that `balance` looks at.
        part: which.
    """
    model.requires_grad_(False)
    model.steering.responder = "routed" if part == "routers" else part
    model.steering.keep = part == "routers"
    for projection in projections(model):
        trained = (
            (projection.unwilling_router, projection.glad_router)
            if part == "routers"
            else (getattr(projection, part),)
        )
        for module in trained:
            module.requires_grad_(True)


def ratio_loss(wanted: Tensor, opposed: Tensor, ceiling: float) -> Tensor:
    """The loss of a responder: the mean of CE(wanted) / CE(opposed) over pairs.

    Args:
        wanted: [B], cross entropy of the answer to learn, nats a token.
        opposed: [B], that of the answer to unlearn.
        ceiling: nats a token up to which `opposed` counts; log V, the cross entropy of a guess, is a natural
            one. Beyond it there is no gradient from that answer.

    Returns:
        Scalar.
    """
    return (wanted / opposed.clamp(FLOOR, ceiling)).mean()


def balance_loss(shares: Sequence[tuple[Tensor, Tensor]], malicious: Tensor, counted: Tensor) -> Tensor:
    """The means of (a - t)^2 and of (b - (1 - t))^2 over layers and tokens, added up.

    Args:
        shares: a and b of each layer, each [B, L].
        malicious: [B] bool, t of each row.
        counted: [B, L] bool, False for padding.

    Returns:
        Scalar, float32; 0 if the routers tell the rows apart wholly, at most 2.
    """
    t = malicious.float().unsqueeze(1)  # [B, 1]
    terms = [(a.float() - t).square() + (b.float() - (1 - t)).square() for a, b in shares]
    return (torch.stack(terms).mean(0) * counted).sum() / counted.sum().clamp(min=1)


def balance(
    malicious: Collection[str], benign: Collection[str], weight: float = BALANCE
) -> Callable[[nn.Module, Batch, Tensor], Tensor]:
    """The penalty of router training: lambda times the balance loss, t from the source of each row.

    The penalty takes what the projections kept in the forward pass of the batch, and leaves none.

    Args:
        malicious: names of the sources of malicious instructions.
        benign: names of the others.
        weight: lambda.

    Raises:
        DataError: a source is in both; and, from the penalty, a row of a source that is in neither.
    """
    if both := set(malicious) & set(benign):
        raise DataError(f"source {min(both)} is both malicious and benign; name each source once")

    def penalty(model: nn.Module, batch: Batch, logits: Tensor) -> Tensor:
        shares = []
        for projection in projections(model):
            assert projection.shares is not None, "train_only() lets routed projections keep their shares"
            shares.append(projection.shares)
            projection.shares = None
        for row, source in enumerate(batch.sources):
            if source not in malicious and source not in benign:
                raise DataError(
                    f"row {row} of a batch is from {source}, which is neither malicious nor benign; name it "
                    "as one of them"
                )
        t = torch.tensor([source in malicious for source in batch.sources], device=logits.device)
        return weight * balance_loss(shares, t, batch.documents >= 0)

    return penalty
