"""Reordered documents are the same documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from workbench.data import TokenFile, reorder

MakeTokens = Callable[[str, int], TokenFile]


def documents(file: TokenFile) -> list[tuple[NDArray[np.uint16], NDArray[np.uint16]]]:
    places = [slice(a, b) for a, b in zip(file.starts, file.starts[1:], strict=False)]
    return [(file.tokens[place], file.bytes[place]) for place in places]


def test_documents_come_in_the_order_asked_for(
    make_tokens: MakeTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.data.reordering.DOCUMENTS_AT_A_TIME", 7)
    file = make_tokens("some", 30)
    order = np.random.default_rng(0).permutation(30)
    moved = reorder(file, order, tmp_path / "moved", "moved")
    for place, (tokens, sizes) in zip(order, documents(moved), strict=True):
        expected = documents(file)[place]
        assert np.array_equal(tokens, expected[0]) and np.array_equal(sizes, expected[1])
    back = reorder(moved, np.argsort(order), tmp_path / "back", "some")
    for name in ("tokens.bin", "bytes.bin", "documents.bin", "tokens.json"):
        assert (back.folder / name).read_bytes() == (file.folder / name).read_bytes()


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3]])
def test_every_document_comes_once(make_tokens: MakeTokens, tmp_path: Path, order: list[int]) -> None:
    with pytest.raises(ValueError, match="not a permutation of 3 documents"):
        reorder(make_tokens("three", 3), np.array(order), tmp_path / "moved", "moved")
