"""In which order the windows of a source are read, pass after pass, and when it has been read enough.

A pass goes over all windows, or over a part of them. A part is the beginning of a keyed permutation of all
windows: of one permutation for every pass (fixed), or of another one in each (dynamic; strategy III of Guo
et al., arXiv 2406.14833). Within a pass the windows are shuffled anew, unless the file is ordered already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from workbench.data.permutation import key, permute
from workbench.data.tokens import TokenFile
from workbench.errors import DataError
from workbench.recipe.curricula import Reading

WhenDry = Literal["repeat", "stop", "redistribute"]

# One key per source and pass; a batch touches one or two passes of a source.
_key = lru_cache(maxsize=256)(key)


@dataclass(frozen=True)
class Reader:
    """How a source is read.

    Attributes:
        name: of the source.
        windows: that the source holds.
        part: windows of one pass.
        fixed: whether each pass is over the same part.
        ordered: whether they come as they stand in the file.
        limit: samples after which the source is dry; None where it starts over for ever.
    """

    name: str
    windows: int
    part: int
    fixed: bool
    ordered: bool
    limit: int | None


def reader(name: str, file: TokenFile, length: int, reading: Reading, when_dry: WhenDry) -> Reader:
    """How a token file is read in windows of `length` tokens.

    Raises:
        DataError: it holds no window, fewer tokens than one pass is to have, or no sample to give.
    """
    windows = file.windows(length)
    if windows == 0:
        raise DataError(
            f"source {name}: {file.num_tokens} tokens, but a window of sequence_length "
            f"{length} takes {length + 1}; add text or shorten the sequences"
        )
    part = windows if reading.tokens is None else reading.tokens // length
    if not 1 <= part <= windows:
        raise DataError(
            f"source {name}: reading.tokens {reading.tokens} are {part} windows of {length} tokens, and the "
            f"source holds {windows}; write {length} to {windows * length}"
        )
    limit = None if when_dry == "repeat" else int((reading.epochs or 1) * part)
    if limit == 0:
        raise DataError(
            f"source {name}: {reading.epochs:g} passes over {part} windows are less than one sample; allow "
            "more epochs, or add text"
        )
    fixed = part < windows and reading.resample == "fixed"
    return Reader(name, windows, part, fixed, reading.order != "shuffled", limit)


def pass_tokens(
    files: Mapping[str, TokenFile], reading: Mapping[str, Reading], length: int
) -> dict[str, int]:
    """Tokens of one pass over each source.

    Raises:
        DataError: as for a reader.
    """
    readers = (
        reader(name, file, length, reading.get(name, Reading()), "repeat") for name, file in files.items()
    )
    return {one.name: one.part * length for one in readers}


def places(seed: int, samples: Sequence[tuple[Reader, int]]) -> list[tuple[int, int]]:
    """Pass and window of some samples, each counted from the first of its source."""
    passes = [divmod(sample, source.part) for source, sample in samples]
    index = np.array([place for _, place in passes], dtype=np.uint64)
    size = np.array(
        [source.part if source.fixed else source.windows for source, _ in samples], dtype=np.uint64
    )
    names = [source.name for source, _ in samples]
    keys = np.array(
        [_key(seed, "source", name, epoch) for name, (epoch, _) in zip(names, passes, strict=True)],
        dtype=np.uint64,
    )
    ordered = np.array([source.ordered for source, _ in samples], dtype=bool)
    window = np.where(ordered, index, permute(index, size, keys))
    if (fixed := np.flatnonzero([source.fixed for source, _ in samples])).size:
        whole = np.array([samples[i][0].windows for i in fixed], dtype=np.uint64)
        parts = np.array([_key(seed, "part", names[i]) for i in fixed], dtype=np.uint64)
        window[fixed] = permute(window[fixed], whole, parts)
    return [(epoch, place) for (epoch, _), place in zip(passes, window.tolist(), strict=True)]
