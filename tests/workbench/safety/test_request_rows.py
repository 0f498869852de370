"""Rows of request sets: .csv and .jsonl alike; what is wrong is named by file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workbench.errors import DataError
from workbench.safety.request_rows import RequestRows, bare


def rows_of(path: Path, **columns: str) -> RequestRows:
    return RequestRows.model_validate({"path": str(path), "columns": {"request": "ask", **columns}})


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffname,ask\na,"One, two\nand three?"\nb,Four?\n')
    told = [{"name": "a", "ask": "One, two\nand three?"}, {"name": "b", "ask": "Four?"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, told)))
    rows = [bare(rows_of(tmp_path / f"a.{kind}", id="name")) for kind in ("csv", "jsonl")]
    assert rows[0] == rows[1] and [row.id for row in rows[0]] == ["a", "b"]
    assert [row.id for row in bare(rows_of(tmp_path / "a.csv"))] == ["1", "2"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"ask": "a"}, {"ask": " "}], {}, "row 2: ask is empty or no text"),
        ([{"ask": "a"}, {"ask": None}], {}, "row 2: ask is empty or no text"),
        ([{"ask": "a"}, {"other": "b"}], {}, "row 2: no column ask; there are other"),
        ([{"ask": "a", "yes": ""}], {"answer": "yes"}, "row 1: yes is empty"),
        ([{"ask": "a", "no": " "}], {"refusal": "no"}, "row 1: no is empty"),
        ([{"ask": "a", "t": []}], {"topic": "t"}, "row 1: t names no topic"),
        ([{"ask": "a", "n": 1}, {"ask": "b", "n": 1}], {"id": "n"}, "row 2: id 1 is that of .*row 1 too"),
        ([["ask"]], {}, "row 1: not a JSON object"),
        ([], {}, "no row; correct path or where"),
    ],
)
def test_a_wrong_row_is_named(rows: list[Any], columns: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=rf"a.jsonl.*{message}"):
        bare(rows_of(path, **columns))


def test_a_file_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"ask\n\xff\n")
    with pytest.raises(DataError, match=r"a.csv: not a whole .csv file in UTF-8"):
        bare(rows_of(tmp_path / "a.csv"))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"a.txt: requests are read from .csv, .jsonl"):
        bare(rows_of(tmp_path / "a.txt"))
    with pytest.raises(DataError, match="no such file"):
        bare(rows_of(tmp_path / "b.csv"))


def test_an_origin_is_one_and_pinned() -> None:
    columns = {"request": "ask"}
    with pytest.raises(ValidationError, match="exactly one of path, hub"):
        RequestRows.model_validate({"columns": columns})
    with pytest.raises(ValidationError, match="pin the 40-digit commit"):
        RequestRows.model_validate({"hub": "organisation/requests", "columns": columns})
    pinned = {"hub": "organisation/requests", "revision": "0" * 40, "columns": columns}
    with pytest.raises(DataError, match=r"hub data set organisation/requests at 00000000, train: .*check id"):
        bare(RequestRows.model_validate(pinned))
