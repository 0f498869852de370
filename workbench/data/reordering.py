"""A token file with the same documents in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench import storage
from workbench.data.tokens import FACTS, TokenFile
from workbench.progress import progress

DOCUMENTS_AT_A_TIME = 4096


def reorder(file: TokenFile, order: NDArray[np.int64], folder: Path, description: str) -> TokenFile:
    """Write the documents of a token file in another order.

    Args:
        file: D documents.
        order: [D] int64, a permutation: which document comes first, second and so on.
        folder: filled; made where it is absent. An interrupted folder is not a token file.
        description: shown beside the progress, and kept as the name.

    Raises:
        ValueError: `order` is not a permutation of the documents.
    """
    if not np.array_equal(np.sort(order), np.arange(file.num_documents)):
        raise ValueError(f"not a permutation of {file.num_documents} documents")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "bytes.bin").open("wb") as sizes,
        progress(description, file.num_documents, "documents") as advance,
    ):
        for first in range(0, file.num_documents, DOCUMENTS_AT_A_TIME):
            some = order[first : first + DOCUMENTS_AT_A_TIME]
            places = [slice(file.starts[i], file.starts[i + 1]) for i in some]
            tokens.write(np.concatenate([file.tokens[place] for place in places]).tobytes())
            sizes.write(np.concatenate([file.bytes[place] for place in places]).tobytes())
            advance(len(some))
    lengths = np.diff(file.starts)[order]
    np.concatenate(([0], lengths.cumsum())).astype("<i8").tofile(folder / "documents.bin")
    facts = storage.read_json(file.folder / FACTS)
    storage.write_json(folder / FACTS, {**facts, "name": description})
    return TokenFile(folder)
