"""Probes: small measurements during training, dense where forgetting is fastest, and the floor they hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from workbench.errors import RecipeError
from workbench.recipe.training import Floor, TrainingStage
from workbench.training import processes
from workbench.training.log import MetricsLog

Probe = Callable[[PreTrainedModel], dict[str, float]]

# Percent of the steps, where the stability gap opens (De Lange et al., arXiv 2205.13452).
EARLY = (1, 2, 4, 8)


def probe_steps(steps: int, every: int) -> list[int]:
    """Updates after which a probe is made: none, few early ones, every so many, and the last.

    Args:
        steps: updates of the whole training.
        every: updates between two probes.
    """
    early = {math.ceil(steps * percent / 100) for percent in EARLY}
    return sorted({0, steps} | early | set(range(every, steps, every)))


@dataclass
class Watch:
    """Probes a model in training and says when it fell under the floor; the same on every process.

    Attributes:
        probe: what is measured; None for nothing.
        stage: when, and which floor.
        start: the floor's metric before the first update, once known.
        sound: updates before the last probe that was not under the floor, once there was one.
        fallen: where and how the floor was broken, once it was.
    """

    probe: Probe | None
    stage: TrainingStage
    start: float | None = None
    sound: int | None = None
    fallen: str | None = None

    def __post_init__(self) -> None:
        if self.stage.floor and self.probe is None:
            raise RecipeError(
                f"floor: {self.stage.floor.metric} is a score of the probe, and this recipe has none; add "
                "the section evaluate, or leave out floor"
            )
        every = self.stage.probe_every
        self._steps = set(probe_steps(self.stage.steps, every)) if self.probe and every else set()

    @property
    def rolls_back(self) -> bool:
        """Whether the weights of the last sound probe must be at hand."""
        return self.stage.floor is not None and self.stage.floor.then == "roll-back"

    def due(self, step: int) -> bool:
        """Whether a probe comes after `step` updates."""
        return step in self._steps

    def look(self, model: PreTrainedModel, log: MetricsLog | None, step: int) -> None:
        """Probe, write the values down, and compare with the floor.

        Raises:
            RecipeError: the floor's metric is none of the probe, or not above 0 before training.
        """
        if not self.due(step):
            return
        assert self.probe
        model.eval()
        with torch.no_grad():
            values = self.probe(model)
        model.train()
        if log:
            tokens = step * self.stage.batch_size * self.stage.sequence_length
            log.write(step=step, tokens=tokens, probe=values)
        if self.stage.floor:
            self._compare(values, self.stage.floor, step)

    def _compare(self, values: dict[str, float], floor: Floor, step: int) -> None:
        if floor.metric not in values:
            raise RecipeError(
                f"floor.metric: {floor.metric} is no score of the probe; use one of "
                f"{', '.join(sorted(values)) or 'none, for it measures nothing'}"
            )
        value = processes.from_first(values[floor.metric])
        if self.start is None:
            if not value > 0:
                raise RecipeError(
                    f"floor.metric: {floor.metric} is {value:.4g} before training, and a share of that is no "
                    "floor; name a score above 0"
                )
            self.start = value
        if value >= floor.share * self.start:
            self.sound = step
            return
        kept = self.sound if floor.then == "roll-back" else step
        self.fallen = (
            f"training ended at step {step} of {self.stage.steps}: {floor.metric} fell to {value:.4g}, under "
            f"the floor of {floor.share * self.start:.4g} ({floor.share:g} of {self.start:.4g} before "
            f"training); the weights of step {kept} were kept"
        )
