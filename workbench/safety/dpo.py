"""DPO by TRL, with an anchor, and the signs of its degeneration (Rafailov et al., arXiv 2305.18290, eq. 7).

    L = - E log sigma( beta [ log pi(y_w|x) / pi_ref(y_w|x) - log pi(y_l|x) / pi_ref(y_l|x) ] )
        - lambda E log pi(y_w|x) / |y_w|

y_w the chosen and y_l the rejected answer; pi_ref is the start, which looks over all pairs before the first
step, so that no second model is held. The second line, the anchor, is the cross entropy of the chosen answers
per token (as in Pang et al., arXiv 2404.19733); it holds up the likelihood of y_w, which the first line lets
fall as long as that of y_l falls faster (Razin et al., arXiv 2410.08847).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from workbench.errors import NumericsError
from workbench.recipe.safety import Dpo
from workbench.safety.course import Course, Outcome, Part
from workbench.safety.trainer import Row, Scheduled, train

SAMPLED, LONGEST, LOOKS = 8, 64, 4  # answers that are sampled, their tokens, and how often in a training


class PairTrainer(Scheduled, DPOTrainer):
    """TRL's DPOTrainer for pairs that are tokens already; it tells nobody that it is in use."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


def prefer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    course: Course,
    settings: Dpo,
    callbacks: Sequence[TrainerCallback] = (),
) -> Outcome:
    """Train a model in place to prefer the chosen answers; every process calls this.

    Args:
        model: the start and the reference, with what is trained requiring gradients.
        tokenizer: of the model; only its marks are asked for.
        course: the pairs.
        settings: beta and the weight of the anchor.
        callbacks: what else happens in the training.

    Raises:
        NumericsError: loss or gradient is not finite.
        RunError: the folder cannot be written, or its checkpoints belong to another training.
    """
    steps, before = len(course.order), (model.config, model.generation_config)
    part = Part("", 0, steps, course.stage.learning_rate)
    # TRL writes the padding token into whatever it is handed.
    model.config, model.generation_config, tokenizer = copy.deepcopy((*before, tokenizer))
    losses: dict[str, Any] = {"loss_type": ["sigmoid"]}
    if settings.anchor:
        losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.anchor]}

    def make(arguments: Callable[..., Any]) -> Scheduled:
        own = {"beta": settings.beta, "precompute_ref_log_probs": True, "max_length": None}
        return PairTrainer(
            model=model,
            args=arguments(DPOConfig, **losses, **own),
            data_collator=DataCollatorForPreference(tokenizer.pad_token_id or 0),  # padding is masked
            train_dataset=course.rows,
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )

    outcome = train(course, part, model, make, _Watch(model, course, settings.beta))
    model.config, model.generation_config = before
    vars(model).pop("forward", None)  # TRL's, with the loss in it
    return outcome


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
        return f"step {self.step}: {self.sign}, {self.found:.3g} against at most {self.limit:.3g}"


@dataclass(frozen=True)
class Tracker:
    """Running means of a DPO training and which limits were crossed; `after` gives the next one.

    Attributes:
        limits: see there.
        fall: running mean of the fall of the chosen answers, nats a token; None before the first step.
        margin: running mean of the margin.
        told: the signs that an alarm was given for.
    """

    limits: Limits = Limits()
    fall: float | None = None
    margin: float | None = None
    told: frozenset[str] = frozenset()

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
            The tracker of the next step, and an alarm for each limit that was crossed for the first time.

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
        new = [sign for sign, (value, limit) in found.items() if value > limit and sign not in self.told]
        alarms = [Alarm(sign, step, *found[sign]) for sign in new]
        return replace(self, fall=fall, margin=mean, told=self.told.union(new)), alarms


def _smoothed(past: float | None, value: float, weight: float) -> float:
    return value if past is None else weight * past + (1 - weight) * value


class _Watch:
    """Shows a tracker every row of the log; a few times in a training the model is heard as well."""

    def __init__(self, model: PreTrainedModel, course: Course, beta: float) -> None:
        self.model, self.course, self.beta = model, course, beta
        self.tracker = Tracker()
        steps = len(course.order)
        self.looks = {steps * look // LOOKS for look in range(1, LOOKS + 1)}

    def __call__(self, row: Row) -> list[str]:
        step = row["step"]
        if step in self.looks and "repetition" not in row:
            row["repetition"] = self._repetition()
        length = self.course.sizes["chosen_ids"][self.course.order[step - 1]].mean()
        change = row["rewards/chosen"] / self.beta / length
        self.tracker, alarms = self.tracker.after(step, change, row["rewards/margins"], row.get("repetition"))
        return [str(alarm) for alarm in alarms]

    @torch.no_grad()
    def _repetition(self) -> float:
        """Mean repetition of greedy answers to the first prompts; every process generates alike."""
        rows = [self.course.rows[int(number)] for number in self.course.order.ravel()[:SAMPLED]]
        prompts = [torch.tensor(row["prompt_ids"]) for row in rows]
        ends = sorted({row["chosen_ids"][-1] for row in rows})
        tokens = pad_sequence(prompts, batch_first=True, padding_side="left")
        seen = pad_sequence(
            [torch.ones_like(each) for each in prompts], batch_first=True, padding_side="left"
        )
        model: Any = self.model
        training, device = model.training, model.device
        model.eval()
        answers = model.generate(
            input_ids=tokens.to(device),
            attention_mask=seen.to(device),
            max_new_tokens=LONGEST,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            synced_gpus=False,
        )[:, tokens.shape[1] :]
        model.train(training)
        return sum(repetition(_spoken(answer, ends)) for answer in answers.tolist()) / len(rows)


def _spoken(answer: list[int], ends: Sequence[int]) -> list[int]:
    """What was said up to the mark that ends it."""
    stops = [place for place, token in enumerate(answer) if token in ends]
    return answer[: stops[0]] if stops else answer
