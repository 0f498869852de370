"""Text from nothing: written once, the same from the same seed, and gone on with where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import storage
from workbench.data.synthetic import Written
from workbench.errors import DataError, RecipeError
from workbench.recipe.inputs import Model, Source
from workbench.recipe.preparation import Generated
from workbench.recipe.schema import Evaluate, Recipe
from workbench.stages import generated, prepare
from workbench.stages.identity import source_identity
from workbench.storage import Store


def settings(**more: object) -> Generated:
    return Generated.model_validate({"writer": {"path": "m"}, "documents": 5, **more})


def poet(prompts: list[str], seed: int) -> list[Written]:
    """Writes a text of each number from its seed on, but nothing where a 3 is in it."""
    assert not any(prompts)
    numbers = range(seed, seed + len(prompts))
    return [Written("\n" if "3" in str(number)[-1] else f"text {number}", False) for number in numbers]


def texts(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text().splitlines()]


def test_there_are_as_many_texts_as_asked_and_none_is_blank(tmp_path: Path) -> None:
    generated.compose(poet, settings(documents=200), 1, tmp_path)
    found = texts(tmp_path)
    assert len(found) == len(set(found)) == 200 and all(text.startswith("text ") for text in found)


def test_a_writing_that_was_stopped_goes_on_at_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "BATCH", 2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    generated.compose(poet, settings(), 1, whole)
    calls: list[int] = []

    def dies(prompts: list[str], seed: int) -> list[Written]:
        calls.append(seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return poet(prompts, seed)

    with pytest.raises(KeyboardInterrupt):
        generated.compose(dies, settings(), 1, stopped)
    generated.compose(dies, settings(), 1, stopped)
    assert calls[1] == calls[2] and len(set(calls)) == len(calls) - 1
    assert texts(stopped) == texts(whole)


def test_a_writer_without_words_or_room_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"70 texts of the writer are blank, and 5 of 5 are still missing"):
        generated.compose(lambda prompts, _: [Written("", True)] * len(prompts), settings(), 1, tmp_path)
    with pytest.raises(DataError, match="max_new_tokens 256 leaves no room"):
        generated.compose(
            lambda prompts, _: [Written(None, False)] * len(prompts), settings(), 2, tmp_path / "b"
        )


def recipe(tmp_path: Path, writer: dict[str, str], **more: object) -> Recipe:
    section = {"writer": writer, "documents": 3, "max_new_tokens": 8, **more}
    return Recipe(
        name="r",
        description="",
        evaluate=Evaluate(battery="miniworld"),
        model=Model(path=str(tmp_path)),
        data={"written": Source.model_validate({"generated": section})},
    )


def test_a_source_is_written_by_a_model_once(tmp_path: Path, tiny_model_folder: Path) -> None:
    made = recipe(tmp_path, {"path": str(tiny_model_folder)})
    source, store = made.data["written"], Store(tmp_path / "store")
    first = list(prepare.documents(store, source, made))
    assert len(first) == len(set(first)) == 3
    folder = next(path.parent for path in (tmp_path / "store").glob("*/texts.jsonl"))
    before = folder.stat().st_mtime_ns
    assert list(prepare.documents(store, source, made)) == first
    assert folder.stat().st_mtime_ns == before
    again = list(prepare.documents(Store(tmp_path / "other"), source, made))
    held = source.model_copy(update={"documents": (1, 3)})
    assert again == first and list(prepare.documents(store, held, made)) == first[1:]


def test_identity_follows_settings_writer_and_seed(tmp_path: Path, tiny_model_folder: Path) -> None:
    path = {"path": str(tiny_model_folder)}
    kinds = [
        recipe(tmp_path, path),
        recipe(tmp_path, path, temperature=0.7),
        recipe(tmp_path, path, documents=4),
        recipe(tmp_path, {"endpoint": "http://localhost:1/v1", "model": "m"}),
        recipe(tmp_path, {"endpoint": "http://localhost:1/v1", "model": "n"}),
        recipe(tmp_path, {"variant": "base"}),
        recipe(tmp_path, path).model_copy(update={"seed": 2}),
    ]
    found = [storage.digest(source_identity(each.data["written"], each)) for each in kinds]
    held = kinds[0].data["written"].model_copy(update={"documents": (0, 2)})
    found.append(storage.digest(source_identity(held, kinds[0])))
    assert len(set(found)) == len(found)
    assert found[0] == storage.digest(source_identity(kinds[0].data["written"], recipe(tmp_path, path)))


def test_a_writer_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"variant": "bass"})
    with pytest.raises(RecipeError, match=r"no variant bass; r makes base"):
        source_identity(made.data["written"], made)
