"""Rows of a data file: .csv, .jsonl, or a pinned data set of the hub; and the requests that they hold."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from workbench.errors import DataError
from workbench.recipe.section import Section

KINDS = (".csv", ".jsonl")


class Columns(Section):
    """The keys of a row that are read."""

    request: str = Field(description="what a user asks")
    id: str | None = Field(default=None, description="name of the row; default: its number")
    topic: str | None = Field(default=None, description="one topic, or a list of them")
    answer: str | None = Field(default=None, description="an answer that complies")
    refusal: str | None = Field(default=None, description="an answer that refuses")


class Origin(Section):
    """Where rows come from."""

    path: str | None = Field(
        default=None, description="a .csv or .jsonl file; may begin with $WORKBENCH_DATA"
    )
    hub: str | None = Field(default=None, description="a data set id on the Hugging Face hub")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the hub data set"
    )
    subset: str | None = Field(default=None, description="configuration name of the hub data set")
    split: str = Field(default="train", description="split of the hub data set")
    where: dict[str, str] = Field(
        default_factory=dict, description="only rows with these values, as in {label: safe}"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("needs exactly one of path, hub")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: pin the 40-digit commit of the hub data set")
        return self


class RequestRows(Origin):
    """Where the rows of a request set come from, and what they hold."""

    columns: Columns


@dataclass(frozen=True, kw_only=True)
class Bare:
    """A request as it stands in a file; `topics` is empty where the file has none."""

    id: str
    topics: tuple[str, ...]
    request: str
    answer: str | None
    refusal: str | None


def bare(origin: RequestRows) -> list[Bare]:
    """The requests of a file or a hub data set, in its order.

    Raises:
        DataError: no such file, one that cannot be read, no row with the values of `where`; or a row
            without one of the columns, with an empty text, or with the id of another: names file and row.
    """
    made: list[Bare] = []
    places: dict[str, str] = {}
    for number, where, row in read(origin):
        found = _bare(row, origin.columns, number, where)
        if found.id in places:
            raise DataError(f"{where}: id {found.id} is that of {places[found.id]} too; ids must be unique")
        places[found.id] = where
        made.append(found)
    return made


def read(origin: Origin) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The rows with the values of `where`: number from 1, place for messages, and what they hold.

    Raises:
        DataError: no such file, one that cannot be read, or no such row.
    """
    some, where = False, str(origin.path or origin.hub)
    for number, (where, row) in enumerate(_hub(origin) if origin.hub else _local(origin), 1):
        if all(str(value(row, key, where)) == wanted for key, wanted in origin.where.items()):
            some = True
            yield number, where, row
    if not some:
        asked = ", ".join(f"{key}: {wanted}" for key, wanted in origin.where.items())
        raise DataError(f"{where}: no row{f' with {asked}' if asked else ''}; correct path or where")


def _bare(row: dict[str, Any], columns: Columns, number: int, where: str) -> Bare:
    topics = value(row, columns.topic, where) if columns.topic else []
    topics = tuple(topics if isinstance(topics, list) else [topics])
    if columns.topic and not (topics and all(isinstance(topic, str) and topic.strip() for topic in topics)):
        raise DataError(f"{where}: {columns.topic} names no topic; give one text or a list of them")
    return Bare(
        id=str(value(row, columns.id, where)) if columns.id else str(number),
        topics=topics,
        request=text(row, columns.request, where),
        answer=text(row, columns.answer, where) if columns.answer else None,
        refusal=text(row, columns.refusal, where) if columns.refusal else None,
    )


def value(row: dict[str, Any], key: str, where: str) -> Any:
    """What a row holds under a key.

    Raises:
        DataError: there is no such column.
    """
    if key not in row:
        raise DataError(f"{where}: no column {key}; there are {', '.join(map(str, row))}")
    return row[key]


def text(row: dict[str, Any], key: str, where: str) -> str:
    """A text that a row holds under a key, without white space around it.

    Raises:
        DataError: there is no such column, or no text in it.
    """
    found = value(row, key, where)
    if not isinstance(found, str) or not found.strip():
        raise DataError(f"{where}: {key} is empty or no text; every row needs one")
    return found.strip()


def _local(origin: Origin) -> Iterator[tuple[str, dict[str, Any]]]:
    from workbench import data  # imports torch

    assert origin.path
    path = data.resolve(origin.path)
    if path.suffix not in KINDS:
        raise DataError(f"{path}: requests are read from {', '.join(KINDS)}; convert it")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True) if path.suffix == ".csv" else map(_parsed, file)
            for number, row in enumerate(rows, 1):
                if not isinstance(row, dict):
                    raise DataError(f"{path}, row {number}: not a JSON object; write one a line")
                yield f"{path}, row {number}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a whole {path.suffix} file in UTF-8 ({error}); convert it") from error


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _hub(origin: Origin) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    where = f"hub data set {origin.hub} at {str(origin.revision)[:8]}, {origin.split}"
    try:
        rows = datasets.load_dataset(
            origin.hub, origin.subset, split=origin.split, revision=origin.revision, streaming=True
        )
        for number, row in enumerate(rows, 1):
            yield f"{where}, row {number}", row
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{where}: {error}; check id, revision, subset, split and the connection, or download the "
            "file and give its `path`"
        ) from error
