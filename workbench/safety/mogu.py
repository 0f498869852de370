"""Training a MoGU (arXiv 2405.14488, section 3): the responders one by one, then the routers.

An instruction has two answers, an affirming and a rejecting one; CE is the cross entropy of an answer.

    glad responder       L = CE(affirming) / CE(rejecting)
    unwilling responder  L = CE(rejecting) / CE(affirming)
    routers              L = CE(y|x) + lambda [ mean (a - t)^2 + mean (b - (1 - t))^2 ]

t is 1 where the instruction is malicious and 0 where it is benign, and y the answer that is right there;
means are over layers and tokens. A ratio is lowered without end by an ever worse answer below the line, so
that CE counts up to a ceiling only: that of a guess, log V.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainingArguments

from workbench.data import NO_TARGET
from workbench.models.mogu import MoguModel, projections
from workbench.recipe.safety import Mogu
from workbench.safety.course import Course, Outcome, Part
from workbench.safety.trainer import Scheduled, train
from workbench.training.objective import cross_entropies

Trained = Literal["glad", "unwilling", "routers"]  # in this order

FLOOR = 0.05  # nats a token; below it a ratio would be all rounding


def train_only(model: MoguModel, part: Trained) -> None:
    """Let one responder, or the routers, answer and be trained, and nothing else.

    Args:
        model: changed in place; in router training it keeps the shares that the balance loss looks at.
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
        ceiling: nats a token up to which `opposed` counts. Beyond it there is no gradient from that answer.

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


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Pairs as a batch: first the right answers of B pairs, then the wrong ones, and t.

    Returns:
        `input_ids`, `attention_mask` and `labels` [2B, L] int64, the labels NO_TARGET outside of the answers;
        `malicious` [B] bool.
    """
    told = [(row["prompt_ids"], row[answer]) for answer in ("chosen_ids", "rejected_ids") for row in rows]
    tokens = [torch.tensor(prompt + answer) for prompt, answer in told]
    labels = [torch.tensor([NO_TARGET] * len(prompt) + answer) for prompt, answer in told]
    return {
        "input_ids": pad_sequence(tokens, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(each) for each in tokens], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=NO_TARGET),
        "malicious": torch.tensor([row["malicious"] for row in rows]),
    }


class PartTrainer(Scheduled):
    """A Trainer with the losses of the header."""

    part: Trained
    balance: float
    noted: dict[str, list[float]]

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The loss of the part that is trained."""
        malicious, labels = inputs["malicious"], inputs["labels"]
        seen = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        if self.part == "routers":
            pairs = len(malicious)
            seen, labels = {name: each[:pairs] for name, each in seen.items()}, labels[:pairs]
        logits, labels = model(**seen, use_cache=False).logits[:, :-1], labels[:, 1:]
        nats = cross_entropies(logits.flatten(0, 1), labels.flatten()).view(labels.shape).sum(1)
        counts = (labels != NO_TARGET).sum(1)
        if self.part == "routers":
            balance = balance_loss(self._shares(), malicious, seen["attention_mask"].bool())
            self._note(balance=balance)
            return nats.sum() / counts.sum() + self.balance * balance
        chosen, rejected = (nats / counts).chunk(2)
        affirming = torch.where(malicious, rejected, chosen)
        rejecting = torch.where(malicious, chosen, rejected)
        self._note(affirming=affirming.mean(), rejecting=rejecting.mean())
        wanted, opposed = (affirming, rejecting) if self.part == "glad" else (rejecting, affirming)
        return ratio_loss(wanted, opposed, math.log(logits.shape[-1]))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the losses are made of."""
        logs |= {name: sum(values) / len(values) for name, values in self.noted.items()}
        self.noted.clear()
        super().log(logs, start_time)

    def _shares(self) -> list[tuple[Tensor, Tensor]]:
        """What the projections kept of the last forward pass; they keep it no longer."""
        kept = []
        assert self.model is not None
        for projection in projections(self.model):
            assert projection.shares is not None, "train_only() lets routed projections keep their shares"
            kept.append(projection.shares)
            projection.shares = None
        return kept

    def _note(self, **figures: Tensor) -> None:
        for name, value in figures.items():
            self.noted[name].append(float(self.accelerator.gather(value.detach()).mean()))


def teach(model: MoguModel, course: Course, settings: Mogu) -> dict[str, Outcome]:
    """Train the responders and then the routers, in place, a third of the steps each.

    Args:
        model: with responders; afterwards it answers routed.
        course: the pairs.
        settings: rate of the routers and weight of their balance loss.

    Returns:
        By part; every process calls this.

    Raises:
        NumericsError: loss or gradient is not finite.
        RunError: the folder cannot be written, or its checkpoints belong to another training.
    """
    steps, parts = len(course.order), get_args(Trained)
    outcomes = {}
    for index, name in enumerate(parts):
        first, end = (steps * place // len(parts) for place in (index, index + 1))
        rate = settings.router_learning_rate if name == "routers" else course.stage.learning_rate
        train_only(model, name)

        def make(arguments: Callable[..., Any], name: Trained = name) -> Scheduled:
            trainer = PartTrainer(
                model=model,
                args=arguments(TrainingArguments),
                data_collator=collate,
                train_dataset=course.rows,
            )
            trainer.part, trainer.balance, trainer.noted = name, settings.balance, defaultdict(list)
            return trainer

        outcomes[name] = train(course, Part(name, first, end - first, rate), model, make)
    model.steering.keep = False
    model.requires_grad_(True)
    return outcomes
