"""What a source reads of a finished preparation: the documents of a language, of a topic, or the best."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from workbench.recipe.preparation import Where


def prepared(folder: Path, where: Where | None) -> Iterator[str]:
    """The texts of a preparation, in its order.

    `best` is a share of the documents that have the language and the topic, by their number: those of
    the lowest perplexity, the earlier one first where two are equal.

    Args:
        folder: a finished preparation.
        where: which documents; None for all.
    """
    shards = sorted((folder / "shards").glob("*.parquet"))
    chosen = _chosen(shards, where)
    place = 0
    for shard in shards:
        with parquet.ParquetFile(shard) as table:
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                wanted = chosen[place : place + size]
                place += size
                if wanted.any():
                    texts = table.read_row_group(group, columns=["text"])["text"].to_numpy()
                    yield from texts[wanted].tolist()


def _chosen(shards: list[Path], where: Where | None) -> NDArray[np.bool_]:
    """Which of all documents are meant: [D] bool."""
    tagged = where.model_dump(include={"language", "topic"}, exclude_none=True) if where else {}
    parts, scores = [], []
    for shard in shards:
        tags = parquet.read_table(shard, columns=["language", "topic", "quality"])
        part = np.ones(len(tags), bool)
        for key, value in tagged.items():
            part &= pc.fill_null(pc.equal(tags[key], value), False).to_numpy()
        parts.append(part)
        scores.append(tags["quality"].to_numpy())
    chosen: NDArray[np.bool_] = np.concatenate([np.zeros(0, bool), *parts])
    if where and where.best is not None:
        those = np.flatnonzero(chosen)
        order = np.argsort(np.concatenate(scores)[those], kind="stable")
        chosen[those[order[round(where.best * len(those)) :]]] = False
    return chosen
