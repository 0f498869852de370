"""Words and n-grams by the batch are those that a plain reading finds."""

import re

import numpy as np
import pytest

from workbench.data.words import drawn, mixed, ngrams, wholes, words

TEXTS = ["The cat, the CAT and a café!", "", "...", "naïve 3.14  \n the cat", "红楼梦 is long", "ไทย"]
SPELT = [["the", "cat", "the", "cat", "and", "a", "café"], [], [], ["naïve", "3", "14", "the", "cat"]]
SPELT += [["红", "楼", "梦", "is", "long"], ["ไ", "ท", "ย"]]


def test_words_are_the_same_exactly_where_they_are_spelt_the_same() -> None:
    found = words(TEXTS)
    assert found.counts.tolist() == [len(text) for text in SPELT]
    spelt = [word for text in SPELT for word in text]
    number = {word: spelt.index(word) for word in spelt}
    first = {int(value): index for index, value in reversed(list(enumerate(found.hashes)))}
    assert [first[int(value)] for value in found.hashes] == [number[word] for word in spelt]


def test_a_word_does_not_depend_on_its_batch() -> None:
    together = words(TEXTS).hashes
    apart = np.concatenate([words([text]).hashes for text in TEXTS])
    assert (together == apart).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_ngrams_stay_within_their_text(n: int) -> None:
    grams = ngrams(words(TEXTS), n)
    spelt = [tuple(text[i : i + n]) for text in SPELT for i in range(len(text) - n + 1)]
    assert grams.counts.tolist() == [max(len(text) - n + 1, 0) for text in SPELT]
    assert len(set(grams.hashes.tolist())) == len(set(spelt))
    assert len(set(zip(grams.hashes.tolist(), spelt, strict=True))) == len(set(spelt))


def test_a_whole_text_is_its_only_ngram() -> None:
    text = words(TEXTS)
    those, hashes = wholes(text, 5)
    assert those.tolist() == [3, 4]
    grams = ngrams(text, 5)
    assert [grams.hashes[grams.starts[i]] for i in those] == hashes.tolist()


def test_no_collisions_among_short_words() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    text = " ".join(a + b + c for a in letters for b in letters for c in letters)
    assert len(np.unique(words([text]).hashes)) == len(re.findall(r"\w+", text))


def test_hashes_are_the_same_everywhere() -> None:
    """Splitmix64 from state 0, as its authors' code gives it."""
    assert drawn(3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mixed(np.zeros(1, np.uint64)).tolist() == [0]
