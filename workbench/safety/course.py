"""A training on pairs: what it sees, the parts that it has, and what each of them cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.recipe.schema import Engine
from workbench.recipe.training import TrainingStage

if TYPE_CHECKING:
    from datasets import Dataset  # takes a second to import


@dataclass(frozen=True)
class Course:
    """A training on pairs, of one part or of several.

    Attributes:
        rows: the pairs, as `pairs.encode` gives them.
        order: [steps, batch] int64, which of them each step sees.
        stage: optimizer and schedule.
        engine: DeepSpeed settings.
        seed: of the recipe.
        out: folder of the stage.
        title: shown with the progress.
    """

    rows: Dataset
    order: Any
    stage: TrainingStage
    engine: Engine
    seed: int
    out: Path
    title: str

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """Tokens of the prompt and of each answer of every pair, [N] int64."""
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        return {name: np.array([len(ids) for ids in self.rows[name]], np.int64) for name in columns}

    @cached_property
    def tokens(self) -> Any:
        """Tokens seen up to the end of every step, [steps] int64; a prompt is read with either answer."""
        prompt, chosen, rejected = self.sizes.values()
        return (2 * prompt + chosen + rejected)[self.order].sum(1).cumsum()


@dataclass(frozen=True)
class Part:
    """One training of a course.

    Attributes:
        name: of its checkpoints, where a course has several parts; empty where it has one.
        first: steps of the course before it.
        steps: of its own; its schedule runs over them.
        rate: peak learning rate.
    """

    name: str
    first: int
    steps: int
    rate: float


@dataclass(frozen=True)
class Outcome:
    """What a training cost and where it ended.

    Attributes:
        seconds: wall time, that of interrupted tries up to their last checkpoint included.
        busy: seconds of the steps that this try made, and the tokens in them.
        loss: of the last step.
        trainable_parameters: numbers that were trained.
        optimizer_bytes: of AdamW's state on this process.
        told: what the watch gave, and what it gave before a stop.
    """

    seconds: float
    busy: tuple[float, int]
    loss: float
    trainable_parameters: int
    optimizer_bytes: int
    told: list[str] = field(default_factory=list)
