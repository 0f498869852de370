"""IBM Model 1 does what its equations say, and finds the translations that the text holds."""

from __future__ import annotations

import itertools

import pytest

from workbench import miniworld
from workbench.data.alignment import EMPTY, align, token_shares
from workbench.errors import DataError

HOUSE, BOOK, THE, A = (1,), (2,), (3,), (4,)
DAS, HAUS, BUCH, EIN = (11,), (12,), (13,), (14,)
OLD = [[THE, HOUSE], [THE, BOOK], [A, BOOK]]
NEW = [[DAS, HAUS], [DAS, BUCH], [EIN, BUCH]]


def by_hand(rounds: int) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
    """The textbook's loops, with the empty word."""
    olds, news = sorted({e for s in OLD for e in s} | {EMPTY}), sorted({f for s in NEW for f in s})
    t = {(f, e): 1.0 for f in news for e in olds}
    counts = dict.fromkeys(t, 0.0)
    for _ in range(rounds):
        counts = dict.fromkeys(t, 0.0)
        for old, new in zip(OLD, NEW, strict=True):
            for f, e in itertools.product(new, [EMPTY, *old]):
                counts[f, e] += t[f, e] / sum(t[f, other] for other in [EMPTY, *old])
        t = {(f, e): counts[f, e] / sum(counts[other, e] for other in news) for f, e in t}
    return counts


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_agrees_with_the_textbook(rounds: int) -> None:
    expected = by_hand(rounds)
    found = align(OLD, NEW, rounds)
    assert found and all(found[pair] == pytest.approx(expected[pair]) for pair in found)
    assert sum(found.values()) < sum(map(len, NEW))  # the rest went to the empty word


def test_finds_the_translations() -> None:
    found = align(OLD, NEW, 30)
    for f, e in ((DAS, THE), (HAUS, HOUSE), (BUCH, BOOK), (EIN, A)):
        assert max((pair for pair in found if pair[0] == f), key=found.__getitem__) == (f, e)


def test_tokens_align_by_their_place_in_the_word() -> None:
    shares = token_shares({((0, 1), (7,)): 2.0, ((2,), (5, 6)): 1.0, ((3, 0), (8, 9)): 2.0}, 5)
    assert shares == [{7: 0.5, 9: 0.5}, {7: 1.0}, {5: 0.5, 6: 0.5}, {8: 1.0}, {}]


def test_text_that_is_not_parallel_is_refused() -> None:
    with pytest.raises(DataError, match="3 documents in the old language, 2 in the new"):
        align(OLD, NEW[:2], 3)
    with pytest.raises(DataError, match="at least one"):
        align([], [], 3)


def test_translates_the_miniature_world() -> None:
    """Words that both languages tell of the same facts find each other."""
    sides = [miniworld.corpus(kind, 1) for kind in ("base_parallel", "new_parallel")]
    number: dict[str, int] = {}
    old, new = (
        [[(number.setdefault(w.strip("."), len(number)),) for w in text.split()] for text in side]
        for side in sides
    )
    found = align(old, new, 10)
    best = {f: max((pair for pair in found if pair[0] == f), key=found.__getitem__)[1] for f, _ in found}
    names = {word for text in sides[0] for word in text.split()} & {w for t in sides[1] for w in t.split()}
    right = [best[(number[name.strip(".")],)] == (number[name.strip(".")],) for name in names]
    assert sum(right) > 0.9 * len(right) > 30
