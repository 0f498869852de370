"""Preparation: the sources, seeds, tasks and trusted text of a recipe's `prepare`, made into shards once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from workbench import evaluation
from workbench.data import labels, ngram, preparation
from workbench.data.decontamination import Questions
from workbench.data.labels import Labeller
from workbench.data.preparation import Judges
from workbench.progress import console
from workbench.recipe.inputs import Source
from workbench.recipe.preparation import Labels, Preparation
from workbench.recipe.schema import Recipe
from workbench.stages.identity import preparation_fingerprint
from workbench.storage import Store

Read = Callable[[Source], Iterator[str]]


def make(store: Store, name: str, recipe: Recipe, read: Read) -> Path:
    """The folder of a finished preparation; goes on from the shards that a stopped try left.

    Args:
        store: where it lies.
        name: of the preparation in the recipe.
        recipe: names its sources.
        read: the documents of a source.

    Raises:
        RecipeError: the recipe has no such preparation.
        DataError: a source cannot be read, or a label has too few seeds.
    """

    def build(out: Path) -> None:
        settings = recipe.prepare[name]
        if not (out / preparation.RECORD).exists():
            sources = {source: _late(read, recipe.data[source]) for source in settings.sources}
            preparation.read(sources, out, settings, name)
            fates = preparation.choose(out, settings)
            judges = _judges(settings, recipe, read)
            preparation.tag(out, fates, judges, name)
            preparation.record(out, judges, name)
        preparation.tidy(out)

    return store.make(preparation_fingerprint(name, recipe), build, resumable=True)


def questions(recipe: Recipe) -> dict[str, Iterator[str]]:
    """All texts of the questions of each task of the recipe's battery: prompts, choices, passages."""
    assert recipe.evaluate
    battery = evaluation.load_battery(recipe.evaluate.battery)
    harness = evaluation.Harness(battery, {"seed": recipe.seed})
    return {
        f"{entry.aspect}.{entry.name}": (
            text
            for task in harness.tasks(entry).values()
            for document in task.eval_docs
            for text in _texts(document)
        )
        for entry in battery.tasks
    }


def _judges(settings: Preparation, recipe: Recipe, read: Read) -> Judges:
    trusted = settings.quality
    return Judges(
        questions=Questions(questions(recipe), settings.decontaminate) if settings.decontaminate else None,
        language=_labeller("language", settings.language, recipe, read),
        topic=_labeller("topic", settings.topic, recipe, read),
        quality=ngram.fit(islice(read(recipe.data[trusted.reference]), trusted.documents), trusted.order)
        if trusted
        else None,
    )


def _labeller(kind: str, settings: Labels | None, recipe: Recipe, read: Read) -> Labeller | None:
    if settings is None:
        return None
    seeds = {label: read(recipe.data[source]) for label, source in settings.seeds.items()}
    labeller = labels.fit(seeds, settings.documents)
    console.print(
        f"{kind}: {labeller.accuracy:.1%} of {labeller.held_out} held-out seed texts are labelled right",
        highlight=False,
    )
    return labeller


def _late(read: Read, source: Source) -> Iterator[str]:
    """Open a source when its turn comes."""
    yield from read(source)


def _texts(value: Any) -> Iterator[str]:
    """Every text in the rows of a task, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
