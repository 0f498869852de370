"""A recipe's preparation is made once, under all that determines it, and read by its sources."""

from pathlib import Path
from typing import Any

import pytest

from workbench import evaluation, miniworld, storage
from workbench.errors import DataError, RecipeError
from workbench.recipe.schema import Recipe
from workbench.stages import preparation, prepare
from workbench.stages.identity import preparation_fingerprint, source_identity
from workbench.storage import Store

TOPICS = ("people", "places", "things", "beasts")
RECIPE: dict[str, Any] = {
    "name": "small",
    "description": "a preparation",
    "seed": 1,
    "model": {"hub": "some/model", "revision": "0" * 40},
    "data": {
        "web": {"miniworld": "new"},
        "old": {"miniworld": "base", "documents": [0, 300]},
        "trusted": {"miniworld": "new_heldout"},
        **{t: {"miniworld": "new", "topic": t, "documents": [0, 100]} for t in TOPICS},
        "good": {"prepared": "clean", "where": {"topic": "beasts", "language": "new", "best": 0.5}},
    },
    "prepare": {
        "clean": {
            "sources": ["web", "old"],
            "near": {"similarity": 0.9},
            "decontaminate": {"ngram": 6, "shortest": 6},
            "language": {"seeds": {"new": "trusted", "old": "old"}},
            "topic": {"seeds": {topic: topic for topic in TOPICS}},
            "quality": {"reference": "trusted"},
            "shard": 3000,
        }
    },
    "evaluate": {"battery": "miniworld"},
}


def recipe(**changed: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **changed})


def clean(**changed: Any) -> Recipe:
    return recipe(prepare={"clean": {**RECIPE["prepare"]["clean"], **changed}})


def test_prepares_once_and_serves_the_best_of_a_topic(tmp_path: Path) -> None:
    store, made = Store(tmp_path), recipe()
    good = list(prepare.documents(store, made.data["good"], made))
    record = storage.read_json(prepare.preparation(store, "clean", made) / "preparation.json")
    assert len(list(tmp_path.glob("[0-9a-f]*"))) == 1
    assert record["documents"] == 8000 + 300
    assert set(record["tasks"]) == set(preparation.questions(made))
    assert record["labels"]["topic"]["accuracy"] > 0.9
    world = {document.text: document for document in miniworld.documents("new", 1)}
    assert len(good) > 100
    assert sum(world[text].topic == "beasts" for text in good if text in world) > 0.9 * len(good)
    assert not any(world[text].quality == "low" for text in good if text in world)


def test_questions_are_those_of_the_battery() -> None:
    texts = {name: set(found) for name, found in preparation.questions(recipe()).items()}
    asked = {question.prompt for question in miniworld.questions("new", 1)}
    assert any(asked <= found for found in texts.values())
    assert set(texts) == {f"{e.aspect}.{e.name}" for e in evaluation.load_battery("miniworld").tasks}


@pytest.mark.parametrize(
    "other",
    [
        clean(near=None),
        clean(topic=None),
        clean(decontaminate=None),
        recipe(data={**RECIPE["data"], "people": {"miniworld": "base", "topic": "people"}}),
        recipe(seed=2),
    ],
)
def test_what_determines_a_preparation_is_in_its_fingerprint(other: Recipe) -> None:
    assert preparation_fingerprint("clean", other) != preparation_fingerprint("clean", recipe())


def test_what_does_not_determine_it_is_not() -> None:
    other = recipe(data={**RECIPE["data"], "unread": {"miniworld": "base"}}, name="other")
    assert preparation_fingerprint("clean", other) == preparation_fingerprint("clean", recipe())


def test_what_a_source_takes_is_in_its_identity() -> None:
    made = recipe()
    good = made.data["good"]
    others = [good.model_copy(update={"where": None}), good.model_copy(update={"documents": (0, 5)})]
    assert source_identity(good, made) == source_identity(good, recipe())
    assert all(source_identity(other, made) != source_identity(good, made) for other in others)


def test_an_unknown_preparation_is_an_error(tmp_path: Path) -> None:
    made = recipe(prepare={})
    with pytest.raises(RecipeError, match="no preparation clean in prepare of small; there are: none"):
        list(prepare.documents(Store(tmp_path), made.data["good"], made))


def test_a_choice_without_documents_is_an_error(tmp_path: Path) -> None:
    data = {**RECIPE["data"], "good": {"prepared": "clean", "where": {"topic": "beasts", "best": 0.0}}}
    made = clean(near=None, decontaminate=None, quality={"reference": "trusted"}, sources=["old"])
    made = made.model_copy(update={"data": recipe(data=data).data})
    with pytest.raises(DataError, match=r"prepared: clean, where: .*has no documents"):
        list(prepare.documents(Store(tmp_path), made.data["good"], made))
