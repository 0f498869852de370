"""Weights over the steps: planned from what is known beforehand, or updated after measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workbench.data.curricula import bandit, doremi, scheduled, temperature, topics, unimax
from workbench.data.curricula.update import Figures, Update
from workbench.recipe.curricula import Bandit, DoReMi, Scheduled, Temperature, Topics, UniMax
from workbench.recipe.training import TrainingStage

Controller = Topics | DoReMi | Bandit
Plan = Callable[[int], Mapping[str, float]]  # weights of the batch of a step


def plan(stage: TrainingStage, weights: Mapping[str, float], tokens: Mapping[str, int]) -> Plan:
    """The weights at every step, as long as no controller changes them.

    Args:
        stage: the curriculum, and how many tokens a step has.
        weights: of all sources in the beginning; those that are not in the stage's own mixture, as what a
            method replays, keep theirs under `temperature` and `unimax`.
        tokens: of one pass over each source.

    Raises:
        DataError: the sources are too small for what the curriculum promises.
    """
    curriculum = stage.curriculum
    if isinstance(curriculum, Scheduled):
        per_step = stage.batch_size * stage.sequence_length
        return lambda step: scheduled.weights(curriculum, weights, step * per_step)
    constant = dict(weights)
    if isinstance(curriculum, Temperature | UniMax):
        own = {name: tokens[name] for name in stage.mixture}
        total = sum(weights[name] for name in own)
        if isinstance(curriculum, Temperature):
            shares = temperature.weights(own, curriculum.temperature)
        else:
            shares = unimax.weights(own, curriculum.epochs, stage.tokens * total)
        constant |= {name: total * share for name, share in shares.items()}
    return lambda step: constant


def update(
    section: Controller, turn: int, weights: Mapping[str, float], measured: Figures, memory: Figures
) -> Update:
    """What a controller makes of a measurement: a pure function, of which each controller has its own file.

    Args:
        section: settings.
        turn: updates so far, this one included; 0 for what is measured before training.
        weights: of all sources so far; they sum to 1.
        measured: losses in nats a token: of the held-out texts, or for a bandit of the training batches.
        memory: what the last update left, or at first what `first_memory` gives.
    """
    if isinstance(section, Topics):
        return topics.update(section, turn, weights, measured, memory)
    if isinstance(section, DoReMi):
        return doremi.update(section, turn, weights, measured, memory)
    return bandit.update(section, turn, weights, measured, memory)


def first_memory(section: Controller, stage: TrainingStage, reference: Figures) -> Figures:
    """What a controller knows before it has measured anything.

    Args:
        section: settings.
        stage: names the sources that a bandit moves.
        reference: losses of the reference of DoReMi.
    """
    if isinstance(section, DoReMi):
        return dict(reference)
    return dict.fromkeys(stage.mixture, 0.0) if isinstance(section, Bandit) else {}
