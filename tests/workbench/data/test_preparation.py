"""What is prepared does not depend on stops, and every document is accounted for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from workbench import miniworld, storage
from workbench.data import labels, ngram, preparation
from workbench.data.decontamination import Questions
from workbench.data.preparation import Judges
from workbench.data.prepared import prepared
from workbench.data.words import words
from workbench.recipe.preparation import Decontamination, Near, Preparation, Where

QUESTION = "which of the seven old mills by the river was the first to burn down that summer"
SETTINGS = Preparation(sources=["one", "two"], near=Near(), decontaminate=Decontamination(), shard=50)


def texts() -> dict[str, list[str]]:
    documents = [document.text for document in miniworld.documents("new", 1)[:150]]
    long = [" ".join(documents[i : i + 3]) for i in range(0, 150, 3)]
    near = [f"{text} indeed" for text in long[:10]]
    asked = [f"he said: {QUESTION}?", f"{QUESTION.upper()}, {long[0]}"]
    return {"one": [*documents, *long], "two": [*documents[:20], *near, *asked, "a last one", "..."]}


@pytest.fixture(scope="module")
def judges() -> Judges:
    topics = {topic: miniworld.corpus("new", 1, topic)[:200] for topic in ("people", "beasts")}
    return Judges(
        questions=Questions({"mills": [QUESTION], "unasked": ["something else"]}, Decontamination()),
        language=labels.fit({"old": miniworld.corpus("base", 1)[:50], "new": texts()["one"][:50]}, 50),
        topic=labels.fit(topics, 200),
        quality=ngram.fit(miniworld.corpus("new_heldout", 1), 3),
    )


def prepare(out: Path, judges: Judges, sources: dict[str, Any] | None = None) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    preparation.read(sources or texts(), out, SETTINGS, "test")
    fates = preparation.choose(out, SETTINGS)
    preparation.tag(out, fates, judges, "test")
    preparation.record(out, judges, "test")
    preparation.tidy(out)
    return storage.read_json(out / preparation.RECORD)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, judges: Judges) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    prepare(folder, judges)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_document_is_kept_or_removed_for_a_reason(whole: Path) -> None:
    record = storage.read_json(whole / preparation.RECORD)
    given = texts()
    assert record["documents"] == sum(map(len, given.values()))
    assert record["kept"] + sum(record["removed"].values()) == record["documents"]
    assert record["sources"]["two"]["exact duplicate"] == 20
    assert record["sources"]["two"]["near-duplicate"] == 10
    assert record["sources"]["two"]["contaminated"] == 2
    assert record["tasks"] == {"mills": 2, "unasked": 0}
    kept = parquet.read_table(whole / "shards").to_pylist()
    removed = parquet.read_table(whole / "removed").to_pylist()
    places = {(row["source"], row["document"]) for row in (*kept, *removed)}
    assert places == {(name, n) for name, found in given.items() for n in range(len(found))}
    assert all(given[row["source"]][row["document"]] == row["text"] for row in kept)


def test_nothing_is_left_that_only_the_making_needed(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {"shards", "removed", "preparation.json"}


@pytest.mark.parametrize("stop", [30, 130, 219])
def test_a_stop_while_reading_leaves_no_trace(tmp_path: Path, whole: Path, judges: Judges, stop: int) -> None:
    def stopping(documents: list[str], at: int) -> Iterator[str]:
        for number, text in enumerate(documents):
            if number == at:
                raise KeyboardInterrupt
            yield text

    given = texts()
    first = {"one": stopping(given["one"], stop), "two": stopping(given["two"], stop - len(given["one"]))}
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, judges, first)
    prepare(tmp_path, judges)
    assert hashes(tmp_path) == hashes(whole)


def test_a_stop_while_tagging_leaves_no_trace(
    tmp_path: Path, whole: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([False, False, True])
    tagged = preparation._tagged

    def stopping(*arguments: Any) -> Any:
        if next(calls):
            raise KeyboardInterrupt
        return tagged(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_tagged", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, judges)
    assert len(list((tmp_path / "shards").glob("[0-9]*.parquet"))) == 2
    prepare(tmp_path, judges)
    assert hashes(tmp_path) == hashes(whole)


def test_topics_and_languages_choose_their_documents(whole: Path) -> None:
    rows = parquet.read_table(whole / "shards").to_pylist()
    for where, expected in (
        (None, rows),
        (Where(topic="beasts"), [row for row in rows if row["topic"] == "beasts"]),
        (
            Where(language="new", topic="people"),
            [r for r in rows if (r["language"], r["topic"]) == ("new", "people")],
        ),
    ):
        assert list(prepared(whole, where)) == [row["text"] for row in expected]
        assert expected
    assert list(prepared(whole, Where(language="none"))) == []


def test_the_best_have_the_lowest_perplexity(whole: Path) -> None:
    rows = parquet.read_table(whole / "shards").to_pylist()
    beasts = sorted((row["quality"], row["text"]) for row in rows if row["topic"] == "beasts")
    best = list(prepared(whole, Where(topic="beasts", best=0.3)))
    assert sorted(best) == sorted(text for _, text in beasts[: round(0.3 * len(beasts))])
    assert list(prepared(whole, Where(best=1.0))) == [row["text"] for row in rows]


def test_shuffled_text_of_the_miniature_world_ranks_last() -> None:
    documents = miniworld.documents("new", 1)[:1000]
    model = ngram.fit(miniworld.corpus("new_heldout", 1), 3)
    scores = model.perplexity(words([document.text for document in documents]))
    quality = np.array([document.quality for document in documents])
    assert np.quantile(scores[quality == "low"], 0.05) > np.quantile(scores[quality == "high"], 0.95)


def test_a_plain_preparation_tags_nothing(tmp_path: Path) -> None:
    settings = Preparation(sources=["one"], exact=False)
    preparation.read({"one": ["a", "a", "b"]}, tmp_path, settings, "plain")
    preparation.tag(tmp_path, preparation.choose(tmp_path, settings), Judges(), "plain")
    preparation.record(tmp_path, Judges(), "plain")
    assert list(prepared(tmp_path, None)) == ["a", "a", "b"]
    record = storage.read_json(tmp_path / preparation.RECORD)
    assert (record["kept"], record["removed"], record["labels"], record["quality"]) == (3, {}, {}, None)
