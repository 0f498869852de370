"""Documents come out of every format alike, and what cannot be read is named."""

from __future__ import annotations

import itertools
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from workbench.data import documents, held, identity, resolve
from workbench.errors import DataError
from workbench.recipe.inputs import Source


def _read(path: Path, **settings: Any) -> list[str]:
    return list(documents(Source(path=str(path), **settings)))


def _hub(**settings: Any) -> Source:
    return Source(hub="some/set", revision="0" * 40, **settings)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("paragraph", ["één\n twee", "drie", "vier 🎉"]),
        ("line", ["één", " twee", "drie", "vier 🎉"]),
        ("file", ["één\n twee\n\n \t\ndrie\n\n\nvier 🎉"]),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_a_document_is_in_plain_text(
    tmp_path: Path, document: str, expected: list[str], ends: str
) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufefféén\n twee\n\n \t\ndrie\n\n\nvier 🎉\n".replace("\n", ends).encode())
    assert _read(file, document=document) == expected


def test_all_formats_give_the_same_documents(tmp_path: Path) -> None:
    texts = ["een", "twee drie", "四 🎉", "vijf"]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"id": 1, "text": t}) + "\n" for t in [*texts, " "]))
    parquet.write_table(pyarrow.table({"text": [*texts, ""], "id": range(5)}), tmp_path / "c.parquet")
    for name in ("a.txt", "b.jsonl", "c.parquet"):
        assert _read(tmp_path / name) == texts
        assert _read(tmp_path / name, documents=(1, 3)) == texts[1:3]


def test_a_folder_is_read_in_sorted_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "deep/a.txt", "a.txt", "README.md", "LICENSE", ".hidden.csv"):
        (tmp_path / name).write_text(name)
    assert _read(tmp_path) == ["a.txt", "b.txt", "deep/a.txt"]


def test_reading_is_lazy(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "good"}\nbroken\n')
    assert next(documents(Source(path=str(file)))) == "good"
    assert _read(file, documents=(0, 1)) == ["good"]
    endless = map(str, itertools.count())
    assert list(held(Source(miniworld="base", documents=(2, 4)), endless)) == ["2", "3"]


def test_held_out_ranges_part_the_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\n".join("abcdefg"))
    parts = [_read(file, document="line", documents=part) for part in [(0, 3), (3, 5), (5, 99)]]
    assert parts == [["a", "b", "c"], ["d", "e"], ["f", "g"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\n\nbad \xff here\n", r"a.txt:3: not UTF-8, byte 0xff at offset 10; convert"),
        ("a.txt", "één".encode("utf-16"), r"a.txt:1: not UTF-8, byte 0xff at offset 0"),
        ("a.txt", b" \n\n", r"a.txt: has no documents; give it some text"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"a.jsonl:3: not JSON"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', r"a.jsonl:1: no text, only body, id; set `field`"),
        ("a.jsonl", b"[1]\n", r"a.jsonl:1: a list, but every line must be a JSON object"),
        ("a.jsonl", b'{"text": null}\n', r"a.jsonl:1: text is a NoneType, not text"),
        ("a.jsonl", b'{"text": "a\\ud800"}\n', r"a.jsonl:1: character 1 of text is half a surrogate pair"),
        ("a.jsonl", b'{"text": "a\xff"}\n', r"a.jsonl:1: not UTF-8"),
        ("a.parquet", b"PAR1 nothing", r"a.parquet: not a whole parquet file"),
        ("a.csv", b"text\na\n", r"a.csv: text is read from .txt, .jsonl, .parquet"),
        ("a.pkl", b"", r"a.pkl: .pkl files can run code when read"),
        ("a.pt", b"", r"a.pt: .pt files can run code when read"),
    ],
)
@pytest.mark.parametrize("whole_folder", [False, True])
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, message: str, whole_folder: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    if whole_folder and "no documents" in message:
        message = "has no documents"
    with pytest.raises(DataError, match=message):
        _read(tmp_path if whole_folder else tmp_path / name)


def test_parquet_with_latin_1_text(tmp_path: Path) -> None:
    texts = pyarrow.array([b"good", b"caf\xe9"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet, after row 0: not UTF-8, byte 0xe9 at offset 3"):
        _read(tmp_path / "a.parquet")


def test_jsonl_with_a_line_of_latin_1(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"text": "é"}\n'.encode() + '{"text": "é"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"a.jsonl:2: not UTF-8, byte 0xe9 at offset 25"):
        _read(tmp_path / "a.jsonl")


def test_parquet_without_the_field_or_with_missing_text(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"body": ["a", None], "id": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: no text, only body, id"):
        _read(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet, row 2: body is a NoneType"):
        _read(tmp_path / "a.parquet", field="body")


def test_missing_paths_and_empty_folders_are_noticed_before_reading(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.txt: no such file or folder"):
        documents(Source(path=str(tmp_path / "nowhere.txt")))
    with pytest.raises(DataError, match=r"no .txt, .jsonl, .parquet file in this folder"):
        documents(Source(path=str(tmp_path)))


def test_a_range_beyond_the_end_says_where_the_end_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n\nb")
    with pytest.raises(DataError, match=r"a.txt: has 2 documents, but the range is \[2, 5\]; lower it"):
        _read(tmp_path / "a.txt", documents=(2, 5))


def test_the_data_variable_is_expanded_at_the_beginning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").mkdir()
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert resolve("$WORKBENCH_DATA/text") == tmp_path / "text"
    assert resolve("$WORKBENCH_DATA") == tmp_path
    for path in ("$HOME", "x/$WORKBENCH_DATA", "$WORKBENCH_DATA2/text"):
        with pytest.raises(DataError, match="no such file"):
            resolve(path)
    with pytest.raises(
        DataError, match=r"nothing \(the recipe says \$WORKBENCH_DATA/nothing\).*set WORKBENCH_DATA"
    ):
        resolve("$WORKBENCH_DATA/nothing")
    monkeypatch.delenv("WORKBENCH_DATA")
    (tmp_path / "shared/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "text")
    assert resolve("$WORKBENCH_DATA").resolve() == tmp_path / "shared/data"


def test_identity_follows_content_not_place(tmp_path: Path) -> None:
    def of(folder: str, text: str, **settings: Any) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.txt").write_text(text)
        return json.dumps(identity(Source(path=str(tmp_path / folder), **settings)), sort_keys=True)

    first = of("one", "text")
    assert of("two", "text") == first
    assert of("two", "texts") != first
    assert of("one", "text", document="line") != first
    assert of("one", "text", documents=(0, 1)) != first
    assert identity(_hub(split="test"))["revision"] == "0" * 40


class _Hub(types.ModuleType):
    """Stands in for the library `datasets`; only what is asked of it."""

    def __init__(self, outcome: list[dict[str, Any]] | Exception) -> None:
        super().__init__("datasets")
        self.exceptions = types.SimpleNamespace(DatasetsError=RuntimeError)
        self.outcome = outcome

    def load_dataset(self, path: str, name: str | None, **settings: Any) -> Iterator[dict[str, Any]]:
        assert settings == {"split": "train", "revision": "0" * 40, "streaming": True}
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return iter(self.outcome)


def test_hub_rows_are_streamed_at_the_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", _Hub([{"text": "a"}, {"text": "b"}, {"body": "c"}]))
    assert list(documents(_hub(documents=(0, 2)))) == ["a", "b"]
    with pytest.raises(DataError, match=r"some/set at 0000.*, train, row 3: no text, only body"):
        list(documents(_hub()))


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), ValueError("bad split"), RuntimeError("mess")]
)
def test_an_unreachable_hub_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", _Hub(error))
    with pytest.raises(DataError, match=rf"some/set .*{error}; check id, revision, .* or download the files"):
        list(documents(_hub()))
