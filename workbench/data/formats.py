"""Files and hub data sets, read row by row: .txt, .jsonl and .parquet, and folders of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from workbench.errors import DataError
from workbench.recipe.inputs import Source

Found = tuple[str, list[str]]  # where it stands, and the texts of the fields that are read

DATA_VARIABLE = "WORKBENCH_DATA"
DATA_DEFAULT = "../shared/data"
TEXT_KINDS = (".txt", ".jsonl", ".parquet")
NOTES = ("", ".md")  # a README or a licence beside the text
CODE_KINDS = (
    ".pkl",
    ".pickle",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".joblib",
    ".npy",
    ".npz",
)  # may run code when read


def resolve(path: str) -> Path:
    """The path that a recipe means: `$WORKBENCH_DATA` at its beginning stands for that variable's value.

    Raises:
        DataError: there is nothing at that path.
    """
    head, _, rest = path.partition("/")
    expanded = (
        Path(os.environ.get(DATA_VARIABLE, DATA_DEFAULT), rest) if head == f"${DATA_VARIABLE}" else Path(path)
    )
    if not expanded.exists():
        written = "" if str(expanded) == path else f" (the recipe says {path})"
        remedy = (
            f"; set {DATA_VARIABLE} to the folder that holds the data" if head == f"${DATA_VARIABLE}" else ""
        )
        raise DataError(f"{expanded.absolute()}{written}: no such file or folder; correct the path{remedy}")
    return expanded


def found(source: Source) -> Iterator[Found]:
    """What is read of a local or hub source, in the order of its files, as it is asked for.

    Raises:
        DataError: at once if there is no file or one of a kind that is not read; on the way if one is not
            UTF-8, lacks the field or cannot be reached.
    """
    if source.path is not None:
        files = files_of(resolve(source.path))
        return chain.from_iterable(_read(file, source) for file in files)
    if source.hub is not None:
        return _hub(source)
    raise ValueError("a miniworld source is generated, not read")


def files_of(path: Path) -> list[Path]:
    """The text files of a path in sorted order; a folder may also hold notes and hidden files."""
    if path.is_file():
        inside = [path]
    else:
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file()
            and file.suffix not in NOTES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    for file in inside:
        if file.suffix in CODE_KINDS:
            raise DataError(
                f"{file}: {file.suffix} files can run code when read; convert it to .jsonl or .parquet"
            )
        if file.suffix not in TEXT_KINDS:
            raise DataError(
                f"{file}: text is read from {', '.join(TEXT_KINDS)}; convert the file or move it away"
            )
    if not inside:
        raise DataError(f"{path}: no {', '.join(TEXT_KINDS)} file in this folder; correct the path")
    return inside


def _read(file: Path, source: Source) -> Iterator[Found]:
    if file.suffix == ".txt":
        if source.chat:
            raise DataError(f"{file}: a .txt file has no rows for chat; move it away, or leave chat out")
        return ((str(file), [text]) for text in _plain_text(file, source.document))
    if file.suffix == ".jsonl":
        return _jsonl(file, source)
    return _parquet(file, source)


def _lines(file: Path) -> Iterator[str]:
    """Lines of a UTF-8 file without their ends; a byte order mark is dropped."""
    offset = 0
    with file.open("rb") as content:
        for number, line in enumerate(content, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file}:{number}: not UTF-8, byte 0x{line[error.start]:02x} at offset "
                    f"{offset + error.start}; convert the file to UTF-8"
                ) from error
            offset += len(line)
            yield re.sub(r"\r?\n$", "", text)


def _plain_text(file: Path, document: str) -> Iterator[str]:
    lines = _lines(file)
    if document == "line":
        yield from lines
    elif document == "file":
        yield "\n".join(lines)
    else:
        for blank, paragraph in groupby(lines, key=lambda line: not line.strip()):
            if not blank:
                yield "\n".join(paragraph)


def _jsonl(file: Path, source: Source) -> Iterator[Found]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}:{number}: not JSON ({error.msg} at column {error.colno}); one object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{file}:{number}: a {type(row).__name__}, but every line must be a JSON object")
        yield _fields(row, source, f"{file}:{number}")


def _parquet(file: Path, source: Source) -> Iterator[Found]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            fields = _names(source)
            for field in fields:
                if field not in names:
                    raise DataError(_lacks(str(file), field, names))
            for batch in table.iter_batches(columns=fields):
                for row in batch.to_pylist():
                    number += 1
                    yield _fields(row, source, f"{file}, row {number}")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}, after row {number}: not UTF-8, byte 0x{error.object[error.start]:02x} at offset "
            f"{error.start}; convert the file to UTF-8"
        ) from error
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a whole parquet file ({error}); fetch it again") from error


def _hub(source: Source) -> Iterator[Found]:
    import datasets

    split = source.split or "train"
    origin = f"hub data set {source.hub} at {str(source.revision)[:12]}"
    try:
        rows = datasets.load_dataset(
            source.hub, source.subset, split=split, revision=source.revision, streaming=True
        )
        found = (_fields(row, source, f"{origin}, {split}, row {n}") for n, row in enumerate(rows, 1))
        if source.document == "file":
            yield origin, ["\n\n".join(text for _, (text,) in found)]
        else:
            yield from found
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{origin}, subset {source.subset}, split {split}: {error}; check id, revision, subset, split "
            "and the connection, or download the files and give their folder as `path`"
        ) from error


def _names(source: Source) -> list[str]:
    """The keys of a row that are read."""
    return [source.chat.prompt, source.chat.response] if source.chat else [source.field]


def _fields(row: dict[str, Any], source: Source, where: str) -> Found:
    return where, [_text(row, name, where) for name in _names(source)]


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise DataError(_lacks(where, field, list(row)))
    text = row[field]
    if not isinstance(text, str):
        raise DataError(
            f"{where}: {field} is a {type(text).__name__}, not text; name another field, or leave it out"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start} of {field} is half a surrogate pair; repair the text"
        ) from error
    return text


def _lacks(where: str, field: str, keys: list[str]) -> str:
    found = (
        f"only {', '.join(keys)}; set `field` or `chat` of the source to those"
        if keys
        else "the row is empty"
    )
    return f"{where}: no {field}, {found}"
