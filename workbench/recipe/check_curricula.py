"""What must hold between curriculum, reading and schedule of a training and the rest of a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from workbench.recipe.curricula import Bandit, DoReMi, Scheduled, Topics
from workbench.recipe.document import KeyPath
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.naming import Said, Variant
from workbench.recipe.quantize import Quantize
from workbench.recipe.schema import Stage
from workbench.recipe.training import Continued, Pretrain, TrainingStage

Faults = Iterator[tuple[KeyPath, str]]


def check(data: dict[str, Any], stages: list[Stage | None], made: list[Variant]) -> Said:
    """What is wrong with the curricula of a recipe, as key paths and messages."""
    declared = data.get("data", {})
    sources = list(declared) if isinstance(declared, dict) else []
    said: Said = []
    for index, stage in enumerate(stages):
        for path, training in trainings(stage, index):
            said += _training(training, path, made, index, sources)
    return said


def trainings(stage: Stage | None, index: int) -> list[tuple[KeyPath, TrainingStage]]:
    """What a stage trains, which is itself or a section of it, with its key path."""
    if isinstance(stage, TrainingStage):
        return [(("stages", index), stage)]
    if isinstance(stage, Quantize) and stage.tuning:
        return [(("stages", index, "tuning"), stage.tuning)]
    return []


def _training(
    stage: TrainingStage, path: KeyPath, made: list[Variant], index: int, sources: list[str]
) -> Faults:
    yield from _starts(stage, path, made, index)
    section, path = stage.curriculum, (*path, "curriculum")
    if isinstance(section, Scheduled):
        yield from _points(section, stage, path)
    elif isinstance(section, Topics | DoReMi):
        yield from _texts(section, stage, sources, path)
    if isinstance(section, Topics):
        yield from _topics(section, path)
    if isinstance(section, DoReMi):
        yield from _reference(section, made, index, path)
    if isinstance(section, Topics | DoReMi | Bandit):
        yield from _floors(section, stage, path)


def _starts(stage: TrainingStage, path: KeyPath, made: list[Variant], index: int) -> Faults:
    """What a training takes from its parent is there."""
    kinds = {variant.name: variant.kind for variant in made}
    parent = next((variant.parent for variant in made if variant.stage_index == index), None)
    if stage.schedule.start == "last" and (
        isinstance(stage, Pretrain) or (parent in kinds and kinds[parent] not in ("pretrain", "cpt", "sft"))
    ):
        what = f"{parent} is not a training of this recipe" if parent else "there is none before pretrain"
        yield (
            (*path, "schedule", "start"),
            f"last is the rate at which the parent's training ended, but {what}; write a share of the peak",
        )
    for name, reading in stage.reading.items() if isinstance(stage, Pretrain) else ():
        if reading.order != "shuffled":
            yield (
                (*path, "reading", name, "order"),
                f"{reading.order} needs a model that finds documents hard; pretrain begins without one",
            )


def _points(section: Scheduled, stage: TrainingStage, path: KeyPath) -> Faults:
    """The mixtures of points are of the stage's sources, and are reached."""
    for number, point in enumerate(section.points):
        here: KeyPath = (*path, "points", number)
        for name in point.mixture:
            if name not in stage.mixture:
                yield (*here, "mixture", name), _not_mixed(name, stage) + "; add it there, with weight 0"
        if point.tokens > stage.tokens:
            yield (*here, "tokens"), f"{point.tokens} lies behind the end of the stage, {stage.tokens} tokens"


def _texts(section: Topics | DoReMi, stage: TrainingStage, sources: list[str], path: KeyPath) -> Faults:
    """Topics are sources of the stage, their held-out texts are sources of the recipe."""
    for topic, text in section.texts.items():
        if topic not in stage.mixture:
            yield (*path, "texts", topic), _not_mixed(topic, stage)
        if text not in sources:
            yield (*path, "texts", topic), _none("source", text, sources, "in data")
        if text in stage.mixture:
            yield (*path, "texts", topic), f"{text} is trained on; name a text that is held out"


def _topics(section: Topics, path: KeyPath) -> Faults:
    """Importance is given to topics, and each topic is in one group."""
    for name in section.importance:
        if name not in section.texts:
            yield (*path, "importance", name), _none("topic", name, section.texts, "in texts")
    if not section.groups:
        return
    counts = Counter(name for group in section.groups for name in group)
    for number, group in enumerate(section.groups):
        for place, name in enumerate(group):
            if name not in section.texts:
                yield (*path, "groups", number, place), _none("topic", name, section.texts, "in texts")
    wrong = [name for name in section.texts if counts[name] != 1]
    if wrong:
        yield (*path, "groups"), f"every topic is in one group; {', '.join(wrong)} is in none or in several"


def _reference(section: DoReMi, made: list[Variant], index: int, path: KeyPath) -> Faults:
    """The reference is made before."""
    before = [variant.name for variant in made if variant.stage_index < index]
    if section.reference not in before:
        yield (*path, "reference"), _none("variant", section.reference, before, "at this point")


def _floors(section: Topics | DoReMi | Bandit, stage: TrainingStage, path: KeyPath) -> Faults:
    """The floors of sources that share a weight leave some of it to share."""
    names = list(stage.mixture) if isinstance(section, Bandit) else list(section.texts)
    groups = section.groups if isinstance(section, Topics) and section.groups else [names]
    kept = 1.0
    if isinstance(stage, Continued) and stage.replay and any(map(stage.replayed, stage.methods)):
        kept -= stage.replay.ratio
    for group in groups:
        total = kept * sum(stage.mixture.get(name, 0.0) for name in group)
        if section.floor * len(group) > total + 1e-9:
            yield (
                (*path, "floor"),
                f"{section.floor:g} for each of {', '.join(group)} is more than the {total:g} that they "
                f"share; write at most {total / len(group):.3g}",
            )


def _not_mixed(name: str, stage: TrainingStage) -> str:
    return _none("source", name, stage.mixture, "in the mixture of this stage")


def _none(what: str, name: str, known: Iterable[str], where: str) -> str:
    names = list(known)
    return f'no {what} "{name}" {where};{meant(nearest(name, names))} there are: {", ".join(names) or "none"}'
