"""DPO with an anchor, and the signs of its degeneration (Rafailov et al., arXiv 2305.18290, equation 7).

    L = - E log sigma( beta [ log pi(y_w|x) / pi_ref(y_w|x) - log pi(y_l|x) / pi_ref(y_l|x) ] )
        - lambda E log pi(y_w|x) / |y_w|

y_w the chosen and y_l the rejected answer. The second line, the anchor, is the cross entropy of the chosen
answers per token (as in Pang et al., arXiv 2404.19733); it holds up the likelihood of y_w, which the first
line lets fall as long as that of y_l falls faster (Razin et al., arXiv 2410.08847).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from workbench.data import NO_TARGET
from workbench.errors import NumericsError
from workbench.training.objective import cross_entropies


@dataclass(frozen=True)
class Preference:
    """Loss of a batch of B pairs.

    Attributes:
        loss: scalar, nats.
        chosen_rewards: [B], beta log pi(y_w|x) / pi_ref(y_w|x).
        rejected_rewards: [B], the same of y_l.
    """

    loss: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def margins(self) -> Tensor:
        """[B], by how much the chosen answer is preferred; the argument of the sigmoid."""
        return self.chosen_rewards - self.rejected_rewards


def log_probabilities(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each row log pi(y|x) and |y|.

    Args:
        logits: [B, L, V], any float dtype.
        labels: [B, L] int64, the token that the logits of the same place predict; NO_TARGET outside of y.

    Returns:
        [B] float32, nats, summed over y; and [B] int64.
    """
    nats = cross_entropies(logits.flatten(0, 1), labels.flatten()).view(labels.shape)
    return -nats.sum(1), (labels != NO_TARGET).sum(1)


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    chosen_tokens: Tensor,
    *,
    beta: float = 0.1,
    anchor: float = 0.0,
) -> Preference:
    """The loss of the header; log 2 where policy and reference agree and there is no anchor.

    Args:
        chosen: [B], log pi(y_w|x), nats, summed over the tokens of y_w.
        rejected: [B], log pi(y_l|x).
        reference_chosen: [B], log pi_ref(y_w|x).
        reference_rejected: [B], log pi_ref(y_l|x).
        chosen_tokens: [B], |y_w|.
        beta: how dear it is to leave the reference.
        anchor: lambda.
    """
    rewards = beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)
    loss = -functional.logsigmoid(rewards[0] - rewards[1]).mean()
    if anchor:
        loss = loss - anchor * chosen.sum() / chosen_tokens.sum()
    return Preference(loss, rewards[0].detach(), rewards[1].detach())


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Share of the n-grams of an answer that it has said before; 0 for an answer too short to have two."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Limits:
    """Where a training counts as degenerate.

    Attributes:
        chosen_fall: nats a token by which the chosen answers may become less likely than under the
            reference; at ln 2 every token is half as likely as it was.
        margin: mean reward margin; at 10 the gradient of the sigmoid is 5e-5 of what it was at the start,
            and what still moves the weights is no preference.
        repetition: mean share of repeated 4-grams in sampled answers.
        smoothing: weight of the past in the running means of both of the first.
    """

    chosen_fall: float = math.log(2)
    margin: float = 10.0
    repetition: float = 0.5
    smoothing: float = 0.9


@dataclass(frozen=True)
class Alarm:
    """A limit that was crossed.

    Attributes:
        sign: which.
        step: when.
        found: the value, in the unit of the limit.
        limit: what it was held against.
    """

    sign: str
    step: int
    found: float
    limit: float

    def __str__(self) -> str:
        return f"step {self.step}: {self.sign}, {self.found:.3g} against at most {self.limit:g}"


@dataclass(frozen=True)
class Tracker:
    """Running means of a DPO training and which limits they are beyond; `after` gives the next one.

    Attributes:
        limits: see there.
        fall: running mean of the fall of the chosen answers, nats a token; None before the first step.
        margin: running mean of the margin.
        beyond: the signs that are over their limit now.
    """

    limits: Limits = Limits()
    fall: float | None = None
    margin: float | None = None
    beyond: frozenset[str] = frozenset()

    def after(
        self, step: int, chosen: float, margin: float, repeated: float | None = None
    ) -> tuple[Tracker, list[Alarm]]:
        """Take note of a step.

        Args:
            step: its number.
            chosen: mean of (log pi(y_w|x) - log pi_ref(y_w|x)) / |y_w|, nats a token; negative if it fell.
            margin: mean reward margin.
            repeated: mean `repetition` of sampled answers, where some were sampled.

        Returns:
            The tracker of the next step, and an alarm for each limit that was crossed with this one; an alarm
            is given once, and again only if the value went back in between.

        Raises:
            NumericsError: a value is NaN or infinite.
        """
        for name, value in (("chosen", chosen), ("margin", margin), ("repeated", repeated)):
            if value is not None and not math.isfinite(value):
                raise NumericsError(f"step {step}: {name} is {value}; lower learning_rate, or raise beta")
        limits = self.limits
        fall = _smoothed(self.fall, -chosen, limits.smoothing)
        mean = _smoothed(self.margin, margin, limits.smoothing)
        found = {
            "the chosen answers become unlikely": (fall, limits.chosen_fall),
            "the margin explodes": (mean, limits.margin),
        }
        if repeated is not None:
            found["the answers repeat themselves"] = (repeated, limits.repetition)
        over = {sign for sign, (value, limit) in found.items() if value > limit}
        beyond = (self.beyond - set(found)) | over
        alarms = [Alarm(sign, step, *found[sign]) for sign in found if sign in over - self.beyond]
        return replace(self, fall=fall, margin=mean, beyond=frozenset(beyond)), alarms


def _smoothed(past: float | None, value: float, weight: float) -> float:
    return value if past is None else weight * past + (1 - weight) * value


def mean_chosen_change(preference: Preference, chosen_tokens: Tensor, beta: float) -> float:
    """What `Tracker.after` wants as `chosen`: nats a token by which the chosen answers became likelier."""
    return float(torch.mean(preference.chosen_rewards / beta / chosen_tokens))
