"""Of what resembles, the first is kept; what is only somewhat alike, stays."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.duplicates import digests, repeats, resembling, rows, signatures
from workbench.data.words import words
from workbench.recipe.preparation import Near

NEAR = Near()


def text(rng: np.random.Generator, count: int) -> list[str]:
    return [f"w{number}" for number in rng.integers(5000, size=count)]


def changed(rng: np.random.Generator, source: list[str], times: int) -> list[str]:
    copy = list(source)
    for place in rng.choice(len(copy), times, replace=False):
        copy[place] = f"x{rng.integers(10**9)}"
    return copy


def jaccard(first: list[str], second: list[str]) -> float:
    a, b = ({tuple(t[i : i + NEAR.ngram]) for i in range(len(t) - NEAR.ngram + 1)} for t in (first, second))
    return len(a & b) / len(a | b)


def dropped(texts: list[str], shard: int = 7) -> list[int]:
    found = signatures(words(texts), NEAR)
    parts = [found[start : start + shard] for start in range(0, len(texts), shard)]
    readers = [partial(np.asarray, part) for part in parts]
    flags = resembling(readers, [len(part) for part in parts], np.zeros(len(texts), bool), NEAR)
    return np.flatnonzero(flags).tolist()


@given(st.lists(st.sampled_from(["a", "b", "c", "A", ""])))
@settings(deadline=None)
def test_repeats_are_what_a_set_has_seen(texts: list[str]) -> None:
    seen: set[str] = set()
    expected = [text in seen or seen.add(text) is not None for text in texts]
    assert repeats(digests(texts)).tolist() == expected


def test_signatures_estimate_the_jaccard_similarity() -> None:
    """The mean error over pairs stays within three standard errors, the spread within 15 % of theory."""
    rng = np.random.default_rng(0)
    errors = []
    for times in (2, 5, 10, 20) * 100:
        first = text(rng, 300)
        second = changed(rng, first, times)
        found = signatures(words([" ".join(first), " ".join(second)]), NEAR)
        truth = jaccard(first, second)
        deviation = np.sqrt(truth * (1 - truth) / NEAR.permutations)
        errors.append(((found[0] == found[1]).mean() - truth) / deviation)
    assert abs(np.mean(errors)) < 3 / np.sqrt(len(errors))
    assert 0.85 < np.std(errors) < 1.15


def test_bands_of_fineweb() -> None:
    """112 permutations at 0.72 are 14 bands of 8, as in arXiv 2406.17557."""
    assert rows(NEAR) == 8


def test_near_copies_go_and_the_rest_stays() -> None:
    rng = np.random.default_rng(1)
    originals = [text(rng, 400) for _ in range(40)]
    copies = [changed(rng, source, 4) for source in originals]  # Jaccard about 0.9
    cousins = [changed(rng, source, 60) for source in originals]  # below 0.4
    assert min(jaccard(a, b) for a, b in zip(originals, copies, strict=True)) > 0.85
    texts = [" ".join(each) for each in (*originals, *cousins, *copies)]
    assert dropped(texts) == list(range(80, 120))


def test_every_dropped_one_resembles_an_earlier_one_and_no_two_kept_ones_are_close() -> None:
    rng = np.random.default_rng(2)
    chain = [text(rng, 200)]
    for _ in range(60):
        chain.append(changed(rng, chain[int(rng.integers(len(chain)))], 5))
    texts = [" ".join(each) for each in chain]
    found = signatures(words(texts), NEAR)
    similar = (found[:, None] == found[None]).mean(axis=2) >= NEAR.similarity
    bands = found.reshape(len(texts), -1, rows(NEAR))
    meet = (bands[:, None] == bands[None]).all(axis=3).any(axis=2)
    out = dropped(texts)
    kept = [i for i in range(len(texts)) if i not in out]
    assert 0 < len(out) < len(texts) - 1
    assert all((similar & meet)[i, :i].any() for i in out)
    assert not any((similar & meet)[i, j] for i in kept for j in kept if i < j)


def test_shards_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    originals = [text(rng, 50) for _ in range(30)]
    texts = [" ".join(each) for each in (*originals, *(changed(rng, o, 1) for o in originals))]
    assert dropped(texts, 1) == dropped(texts, 13) == dropped(texts, 1000) != []


def test_short_texts_are_compared_whole_and_wordless_ones_not_at_all() -> None:
    assert dropped(["one two", "three four", "One, two!", "...", "---", "", "one two three"]) == [2]


@pytest.mark.parametrize("similarity", [0.01, 0.5, 0.99])
def test_any_threshold_has_bands(similarity: float) -> None:
    near = Near(similarity=similarity, permutations=64)
    assert 1 <= rows(near) <= 64
