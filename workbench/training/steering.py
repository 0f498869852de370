"""Steering: a curriculum that measures the model in training, and gives its mixture other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from workbench.data import Mixture, curriculum
from workbench.data.curriculum import Controller
from workbench.recipe.training import TrainingStage
from workbench.training import processes
from workbench.training.log import MetricsLog
from workbench.training.step import Step

Measure = Callable[[PreTrainedModel], dict[str, float]]

# Of a loss in nats: what differs behind them is the rounding of other numbers of processes.
DECIMALS = 4


class Steering:
    """A controller of a mixture; the same on every process.

    Args:
        section: which controller.
        stage: the training that it steers.
        mixture: what it steers.
        measure: loss of each held-out text in nats a token, called in evaluation mode without gradients on
            every process alike; a bandit does without and takes the losses of training.
        reference: the same of the reference model of DoReMi.
    """

    def __init__(
        self,
        section: Controller,
        stage: TrainingStage,
        mixture: Mixture,
        measure: Measure | None,
        reference: Mapping[str, float],
    ) -> None:
        self.section = section
        self.stage = stage
        self.mixture = mixture
        self._measure = measure
        self._memory = curriculum.first_memory(section, stage, _rounded(reference))
        self._nats: dict[str, float] = {}
        self._targets: dict[str, int] = {}

    def count(self, made: Step) -> None:
        """Take note of the losses of an update."""
        for name, nats in made.nats.items():
            self._nats[name] = self._nats.get(name, 0.0) + nats
            self._targets[name] = self._targets.get(name, 0) + made.targets[name]

    def look(self, model: PreTrainedModel, log: MetricsLog | None, step: int) -> None:
        """Where it is time, measure, give the batches from `step` on other weights, and write it down."""
        every = self.section.every
        if step % every or step == self.stage.steps or not (measured := self._measured(model)):
            return
        before = self.mixture.planned(step)
        made = curriculum.update(self.section, step // every, before, measured, self._memory)
        self._memory, self._nats, self._targets = made.memory, {}, {}
        if made.weights is not None:
            self.mixture.reweigh(step, made.weights)
        if log:
            tokens = step * self.stage.batch_size * self.stage.sequence_length
            said = {"measured": measured, **made.said, "weights": made.weights or before}
            log.write(step=step, tokens=tokens, curriculum=said)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {
            "history": self.mixture.history[1:],
            "memory": self._memory,
            "nats": self._nats,
            "targets": self._targets,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        for step, weights in state["history"]:
            self.mixture.reweigh(step, weights)
        self._memory, self._nats, self._targets = state["memory"], state["nats"], state["targets"]

    def _measured(self, model: PreTrainedModel) -> dict[str, float]:
        if self._measure is None:
            losses = {name: nats / self._targets[name] for name, nats in self._nats.items()}
        else:
            training = model.training
            model.eval()
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                losses = self._measure(model)
            model.train(training)
        return _rounded({name: processes.from_first(loss) for name, loss in losses.items()})


def _rounded(losses: Mapping[str, float]) -> dict[str, float]:
    return {name: round(loss, DECIMALS) for name, loss in losses.items()}
