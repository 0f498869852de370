"""Sources of text: local .txt, .jsonl and .parquet files, folders of them, and data sets of the hub.

A document is one string; in a source with `chat` it is an exchange, rendered. Blank documents say
nothing and are left out everywhere alike, so that the range `documents: [start, stop]` of a source
means the same text in every format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from workbench import storage
from workbench.data.formats import files_of, found, resolve
from workbench.errors import DataError
from workbench.recipe.inputs import Source

Exchange = tuple[str, str]  # a user turn and an assistant turn
Render = Callable[[str, str], str]  # both to the text of a document
Part = Callable[[str, str], Exchange]  # both to what stands before an answer, and the answer
Told = TypeVar("Told", str, Exchange)


def joined(prompt: str, response: str) -> str:
    """An exchange as plain text, for whoever knows no chat template."""
    return f"{prompt}\n\n{response}"


def documents(source: Source, render: Render = joined) -> Iterator[str]:
    """The documents of a local or hub source, in the order of its files, read as they are asked for.

    Args:
        source: with `path` or `hub`; a built-in corpus is not made here.
        render: makes a document of an exchange, where the source has `chat`.

    Raises:
        DataError: at once if there is no file or one of a kind that is not read; on the way if one is not
            UTF-8, lacks the field, cannot be reached or has no document in the range.
    """
    rows = found(source)
    if source.chat is None:
        return held(source, (texts[0] for _, texts in rows))
    return held(source, (_told(render, where, turns) for where, turns in rows))


def exchanges(source: Source, part: Part) -> Iterator[Exchange]:
    """The exchanges of a local or hub source with `chat`, in two parts each.

    Args:
        source: with `path` or `hub`, and `chat`.
        part: makes the parts of an exchange.

    Raises:
        DataError: as for documents.
    """
    return held(source, (_told(part, where, turns) for where, turns in found(source)))


def _told(tell: Callable[[str, str], Told], where: str, turns: list[str]) -> Told:
    try:
        return tell(turns[0], turns[1])
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def held(source: Source, told: Iterator[Told]) -> Iterator[Told]:
    """Only the documents or exchanges in the source's range; blank ones are left out and do not count.

    Raises:
        DataError: the range begins where the source has ended, or the source has no documents at all.
    """
    start, stop = source.documents or (0, None)
    solid = (each for each in told if not _blank(each))
    skipped = sum(1 for _ in islice(solid, start))
    empty = True
    for each in islice(solid, None if stop is None else stop - start):
        empty = False
        yield each
    if empty:
        origin = source.path or source.hub or _made(source)
        asked = f", but the range is {[start, stop]}; lower it" if start else "; give it some text"
        raise DataError(f"{origin}: has {skipped or 'no'} documents{asked}")


def _blank(told: str | Exchange) -> bool:
    return all(not text or text.isspace() for text in ([told] if isinstance(told, str) else told))


def _made(source: Source) -> str:
    """What a source without files is called in a message."""
    keys = ("miniworld", "topic", "requests", "moderation", "prepared", "where", "synthetic", "generated")
    said = source.model_dump(include=set(keys), exclude_none=True)
    return ", ".join(f"{key}: {said[key]}" for key in keys if key in said)


def identity(source: Source) -> dict[str, Any]:
    """What determines the documents of a source, as JSON: its settings, and size and SHA-256 of local files.

    Where local files lie does not count, only their names and contents.
    """
    settings = source.model_dump(mode="json", exclude={"path"}, exclude_none=True)
    if source.path is None:
        return settings
    root = resolve(source.path)
    files = [
        {
            "name": file.relative_to(root if root.is_dir() else root.parent).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": storage.file_digest(file),
        }
        for file in files_of(root)
    ]
    return {**settings, "files": files}
