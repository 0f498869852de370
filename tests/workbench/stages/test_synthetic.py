"""Writing goes on where it stopped, keeps what passes the filters, and says what it dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from workbench import storage
from workbench.data.synthetic import Written
from workbench.errors import DataError, RecipeError
from workbench.recipe.inputs import Model, Source
from workbench.recipe.preparation import Synthetic
from workbench.recipe.schema import Evaluate, Recipe
from workbench.stages import prepare, synthetic
from workbench.stages.identity import source_identity
from workbench.storage import Store


def settings(**more: object) -> Synthetic:
    return Synthetic.model_validate({"snippets": "s", "writer": {"path": "m"}, "documents": 5, **more})


def snippets(count: int) -> Iterator[str]:
    return (f"fact number {i} is true" for i in range(count))


def honest(prompts: list[str], seed: int) -> list[Written]:
    """Writes a good pair of every snippet but those with a 3."""
    facts = [prompt.partition("\n")[0] for prompt in prompts]
    return [Written(f" What about it? Answer: {fact}", "3" not in fact) for fact in facts]


def texts(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "pairs.jsonl").read_text().splitlines()]


def test_pairs_are_kept_until_there_are_enough(tmp_path: Path) -> None:
    counts = synthetic.compose(honest, settings(), snippets(20), 1, tmp_path)
    assert counts == synthetic.Counts(written=6, kept=5, dropped={"did not end": 1})
    assert storage.read_json(tmp_path / "counts.json") == asdict(counts)
    assert texts(tmp_path) == [
        f"fact number {i} is true\n\nQuestion: What about it?\nAnswer: fact number {i} is true"
        for i in (0, 1, 2, 4, 5)
    ]


def test_the_same_pair_is_kept_once(tmp_path: Path) -> None:
    twice = (text for text in ["one fact is true"] * 3 + list(snippets(9)))
    counts = synthetic.compose(honest, settings(), twice, 1, tmp_path)
    assert counts.dropped == {"seen before": 2, "did not end": 1}


def test_a_writing_that_was_stopped_goes_on_at_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "BATCH", 2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    synthetic.compose(honest, settings(), snippets(20), 1, whole)
    calls: list[int] = []

    def dies(prompts: list[str], seed: int) -> list[Written]:
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(prompts, seed)

    with pytest.raises(KeyboardInterrupt):
        synthetic.compose(dies, settings(), snippets(20), 1, stopped)
    synthetic.compose(dies, settings(), snippets(20), 1, stopped)
    assert len(calls) == 4 and calls[2] == calls[3] and len(set(calls)) == 3
    assert texts(stopped) == texts(whole)


def test_too_few_snippets_are_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the 4 snippets gave 3 of 5 pairs; dropped: \{'did not end': 1\}"):
        synthetic.compose(honest, settings(), snippets(4), 1, tmp_path)


def recipe(tmp_path: Path, writer: dict[str, str], **more: object) -> Recipe:
    section = {"snippets": "facts", "writer": writer, "documents": 2, "prompt": "{snippet}\n", "answer": " "}
    loose = {"stop": "~~~", "discard": "none", "shortest": 1, "overlap": 0.0, "max_new_tokens": 16}
    return Recipe(
        name="r",
        description="",
        evaluate=Evaluate(battery="miniworld"),
        model=Model(path=str(tmp_path)),
        data={
            "facts": Source(miniworld="base", documents=(0, 100)),
            "written": Source.model_validate({"synthetic": {**section, **loose, **more}}),
        },
    )


def test_a_source_is_written_by_a_model_once(tmp_path: Path, tiny_model_folder: Path) -> None:
    made = recipe(tmp_path, {"path": str(tiny_model_folder)})
    store = Store(tmp_path / "store")
    first = list(prepare.documents(store, made.data["written"], made))
    sources = list(prepare.documents(store, made.data["facts"], made))
    assert len(first) == 2 and any(first[0].startswith(text) for text in sources)
    folder = next(path.parent for path in (tmp_path / "store").glob("*/pairs.jsonl"))
    before = folder.stat().st_mtime_ns
    assert list(prepare.documents(store, made.data["written"], made)) == first
    assert folder.stat().st_mtime_ns == before


def test_identity_follows_prompt_snippets_and_writer(tmp_path: Path, tiny_model_folder: Path) -> None:
    path = {"path": str(tiny_model_folder)}
    kinds = [
        recipe(tmp_path, path),
        recipe(tmp_path, path, prompt="{snippet} "),
        recipe(tmp_path, {"endpoint": "http://localhost:1/v1", "model": "m"}),
        recipe(tmp_path, {"endpoint": "http://localhost:1/v1", "model": "n"}),
        recipe(tmp_path, {"variant": "base"}),
        recipe(tmp_path, path).model_copy(update={"seed": 2}),
    ]
    found = [storage.digest(source_identity(each.data["written"], each)) for each in kinds]
    assert len(set(found)) == len(found)
    assert found[0] == storage.digest(source_identity(kinds[0].data["written"], recipe(tmp_path, path)))


def test_a_writer_or_snippets_that_do_not_exist_are_errors(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"variant": "bass"})
    with pytest.raises(RecipeError, match=r"no variant bass; r makes base"):
        source_identity(made.data["written"], made)
    made = recipe(tmp_path, {"variant": "base"}, snippets="fact")
    with pytest.raises(RecipeError, match=r"no source fact in data of r"):
        source_identity(made.data["written"], made)
