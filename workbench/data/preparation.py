"""Preparation: text read once, cleaned, tagged and kept in shards that a stopped preparation goes on from.

Three passes, each in bounded memory:

    read      documents as they come, with their digests and signatures, into `read/<shard>/`
    choose    which are duplicates, over all shards; nothing is written, for it takes seconds
    tag       what is kept, tagged, into `shards/<shard>.parquet`; what is not, into `removed/`

A shard is a file or folder that is whole or absent. In the end `read/` goes and `preparation.json` says
what was removed, and why.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from workbench import storage
from workbench.data import duplicates, labels
from workbench.data.decontamination import Questions
from workbench.data.labels import Labeller
from workbench.data.ngram import NgramModel
from workbench.data.tokens import batched
from workbench.data.words import words
from workbench.progress import progress
from workbench.recipe.preparation import Preparation

RECORD = "preparation.json"
SHARD_CHARACTERS = 1 << 26  # a shard of long documents ends before it has all of its documents
KEPT, EXACT, NEAR, CONTAMINATED = "kept", "exact duplicate", "near-duplicate", "contaminated"

_READ = pa.schema([("source", pa.string()), ("document", pa.int64()), ("text", pa.string())])
_TAGGED = pa.schema([*_READ, ("language", pa.string()), ("topic", pa.string()), ("quality", pa.float64())])
_REMOVED = pa.schema([*_READ.remove(2), ("reason", pa.string()), ("tasks", pa.list_(pa.string()))])


@dataclass(frozen=True)
class Judges:
    """What documents are judged by; None where the recipe does not ask for it."""

    questions: Questions | None = None
    language: Labeller | None = None
    topic: Labeller | None = None
    quality: NgramModel | None = None


def read(sources: Mapping[str, Iterable[str]], out: Path, settings: Preparation, name: str) -> None:
    """Read all sources into shards, in their order; goes on behind the shards that are there.

    Args:
        sources: the documents of each source by name.
        out: folder of the preparation.
        settings: of the preparation.
        name: of the preparation, for the progress.
    """
    if (out / "read.json").exists():
        return
    (out / "read").mkdir(exist_ok=True)
    done = [_rows(shard / "documents.parquet") for shard in _read_shards(out)]
    stream = (
        {"source": source, "document": number, "text": text}
        for source, texts in sources.items()
        for number, text in enumerate(texts)
    )
    rest = islice(stream, sum(done), None)
    number = len(done)
    with progress(f"{name}: reading", None, "documents", done=sum(done)) as advance:
        for first in rest:
            rows = _shard(chain([first], rest), settings.shard)
            advance(_keep(rows, out / "read" / f"{number:05d}", settings))
            number += 1
    storage.write_json(out / "read.json", {"shards": number})


def choose(out: Path, settings: Preparation) -> list[NDArray[np.str_]]:
    """KEPT, EXACT or NEAR for each document of each shard that `read` wrote."""
    shards = _read_shards(out)
    sizes = [_rows(shard / "documents.parquet") for shard in shards]
    fate = np.full(sum(sizes), KEPT, f"<U{len(EXACT)}")
    if settings.exact:
        found = [np.load(shard / "digests.npy", allow_pickle=False) for shard in shards]
        fate[duplicates.repeats(np.concatenate([np.zeros(0, "<u8"), *found]))] = EXACT
    if settings.near:
        readers = [
            partial(np.load, shard / "signatures.npy", mmap_mode="r", allow_pickle=False) for shard in shards
        ]
        fate[duplicates.resembling(readers, sizes, fate != KEPT, settings.near)] = NEAR
    return np.split(fate, np.cumsum(sizes)[:-1])


def tag(out: Path, fates: list[NDArray[np.str_]], judges: Judges, name: str) -> None:
    """Write what is kept of each shard with its tags, and list what is not; finished shards stay.

    Args:
        out: folder of the preparation.
        fates: from `choose`.
        judges: what documents are judged by.
        name: of the preparation, for the progress.
    """
    for part in ("shards", "removed"):
        (out / part).mkdir(exist_ok=True)
    places = [(out / "shards" / f"{shard.name}.parquet", shard) for shard in _read_shards(out)]
    done = sum(len(fate) for fate, (path, _) in zip(fates, places, strict=True) if path.exists())
    with progress(f"{name}: tagging", sum(map(len, fates)), "documents", done=done) as advance:
        for fate, (path, shard) in zip(fates, places, strict=True):
            if not path.exists():
                _tag(shard / "documents.parquet", path, fate, judges)
                advance(len(fate))


def record(out: Path, judges: Judges, name: str) -> None:
    """Count over all shards and write `preparation.json`."""
    storage.write_json(out / RECORD, _record(out, judges, name))


def tidy(out: Path) -> None:
    """Remove what only the making needed."""
    shutil.rmtree(out / "read", ignore_errors=True)
    (out / "read.json").unlink(missing_ok=True)


def _read_shards(out: Path) -> list[Path]:
    return sorted(path for path in (out / "read").iterdir() if not path.name.startswith("."))


def _rows(path: Path) -> int:
    return int(parquet.read_metadata(path).num_rows)


def _shard(rows: Iterator[dict[str, Any]], most: int) -> Iterator[dict[str, Any]]:
    characters = 0
    for row in islice(rows, most):
        yield row
        characters += len(row["text"])
        if characters >= SHARD_CHARACTERS:
            return


def _keep(rows: Iterator[dict[str, Any]], folder: Path, settings: Preparation) -> int:
    """Write a shard of `read` and say how many documents it has."""
    partial_folder = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir()
    digests, signatures = [], []
    with parquet.ParquetWriter(partial_folder / "documents.parquet", _READ, compression="zstd") as file:
        for some in batched(rows, lambda row: len(row["text"])):
            texts = [row["text"] for row in some]
            digests.append(duplicates.digests(texts))
            if settings.near:
                signatures.append(duplicates.signatures(words(texts), settings.near))
            file.write_table(pa.Table.from_pylist(some, _READ))
    np.save(partial_folder / "digests.npy", np.concatenate(digests), allow_pickle=False)
    if settings.near:
        np.save(partial_folder / "signatures.npy", np.concatenate(signatures), allow_pickle=False)
    os.rename(partial_folder, folder)
    return sum(map(len, digests))


def _tag(source: Path, path: Path, fate: NDArray[np.str_], judges: Judges) -> None:
    """Write one shard; the list of what was removed first, so that a shard never lacks it."""
    partial_file = path.with_name(f".{path.name}")
    removed: list[dict[str, Any]] = []
    place = 0
    with (
        parquet.ParquetFile(source) as table,
        parquet.ParquetWriter(partial_file, _TAGGED, compression="zstd") as file,
    ):
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group).to_pylist()
            kept = _sorted_out(rows, fate[place : place + len(rows)], judges, removed)
            place += len(rows)
            if kept:
                file.write_table(pa.Table.from_pylist(_tagged(kept, judges), _TAGGED))
    listed = path.parent.parent / "removed" / path.name
    parquet.write_table(pa.Table.from_pylist(removed, _REMOVED), listed, compression="zstd")
    os.replace(partial_file, path)


def _sorted_out(
    rows: list[dict[str, Any]], fate: NDArray[np.str_], judges: Judges, removed: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows to keep; the others are appended to `removed`."""
    alive = [row for row, its in zip(rows, fate, strict=True) if its == KEPT]
    for row, its in zip(rows, fate, strict=True):
        if its != KEPT:
            removed.append({**row, "reason": str(its), "tasks": []})
    if judges.questions is None:
        return alive
    found = judges.questions.found(words([row["text"] for row in alive]))
    for number, tasks in sorted(found.items()):
        removed.append({**alive[number], "reason": CONTAMINATED, "tasks": sorted(tasks)})
    return [row for number, row in enumerate(alive) if number not in found]


def _tagged(rows: list[dict[str, Any]], judges: Judges) -> list[dict[str, Any]]:
    texts = [row["text"] for row in rows]
    none: list[Any] = [None] * len(rows)
    features = labels.features(texts) if judges.language or judges.topic else None
    language = judges.language(features) if judges.language else none
    topic = judges.topic(features) if judges.topic else none
    quality = judges.quality.perplexity(words(texts)).tolist() if judges.quality else none
    return [
        {**row, "language": spoken, "topic": about, "quality": good}
        for row, spoken, about, good in zip(rows, language, topic, quality, strict=True)
    ]


def _record(out: Path, judges: Judges, name: str) -> dict[str, Any]:
    """What was read, removed and kept: in all, by source, by reason, by task and by label."""
    kept = parquet.read_table(out / "shards", columns=["source", "language", "topic", "quality"])
    removed = parquet.read_table(out / "removed", columns=["source", "reason", "tasks"])
    sources = {source: {KEPT: count} for source, count in _counts(kept["source"]).items()}
    pairs = zip(removed["source"].to_pylist(), removed["reason"].to_pylist(), strict=True)
    for source, reason in pairs:
        counts = sources.setdefault(source, {KEPT: 0})
        counts[reason] = counts.get(reason, 0) + 1
    tasks = _counts(removed["tasks"].combine_chunks().flatten())
    record: dict[str, Any] = {
        "schema": "workbench.preparation/1",
        "name": name,
        "documents": len(kept) + len(removed),
        "kept": len(kept),
        "removed": _counts(removed["reason"]),
        "sources": dict(sorted(sources.items())),
        "tasks": {task: tasks.get(task, 0) for task in judges.questions.tasks} if judges.questions else {},
        "labels": {},
        "quality": None,
    }
    for kind, judge in (("language", judges.language), ("topic", judges.topic)):
        if judge is not None:
            record["labels"][kind] = {
                "accuracy": judge.accuracy,
                "held_out": judge.held_out,
                "documents": _counts(kept[kind]),
            }
    if judges.quality is not None and len(kept):
        marks = (0.05, 0.25, 0.5, 0.75, 0.95)
        values = np.quantile(kept["quality"].to_numpy(), marks)
        record["quality"] = {f"{mark:g}": float(value) for mark, value in zip(marks, values, strict=True)}
    return record


def _counts(column: Any) -> dict[str, int]:
    found = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
    return dict(sorted(found.items()))
