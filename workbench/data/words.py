"""Words as 64-bit hashes, whole batches at a time: what duplicates, decontamination and quality compare.

A word is a run of letters, digits and their marks, in lower case; punctuation and space say nothing.
In scripts that put no space between words, each character is one. The hash of a word is a polynomial
in its characters, that of an n-gram a polynomial in its words, modulo 2^64 and mixed (splitmix64); it
is the same on every machine.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BASE = np.uint64(0x9E3779B97F4A7C15)
CODES = 0x110000
# Thai, Lao, Burmese, Khmer, kana and the ideographs of Chinese, Japanese and Korean.
UNSPACED = (
    (0x0E00, 0x0F00),
    (0x1000, 0x10A0),
    (0x1780, 0x1800),
    (0x3040, 0x3100),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x32400),
)
_NONE, _LETTER, _WORD = 0, 1, 2  # what a character is: between words, part of a word, a word


@dataclass(frozen=True)
class Words:
    """The words of D texts, one after the other.

    Attributes:
        hashes: [W] uint64.
        starts: [D + 1] int64, first word of each text, and W.
    """

    hashes: Hashes
    starts: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Words of each text: [D] int64."""
        return np.diff(self.starts)


def words(texts: Sequence[str]) -> Words:
    """The words of texts; batches of about a million characters are fastest."""
    lowered = [text.lower() for text in texts]
    codes = np.frombuffer("\n".join(lowered).encode("utf-32-le"), dtype=np.uint32)
    kind = _kinds()[codes]
    before = np.concatenate((np.zeros(1, kind.dtype), kind[:-1]))
    begins = np.flatnonzero((kind != _NONE) & ((before != _LETTER) | (kind == _WORD)))
    ends = np.cumsum([len(text) + 1 for text in lowered], dtype=np.int64)
    starts = np.searchsorted(begins, np.concatenate(([0], ends)))
    if not len(begins):
        return Words(np.zeros(0, np.uint64), starts)
    # A separator counts as zero, so a word may be summed up to where the next one begins.
    lengths = np.diff(begins, append=len(codes))
    place = np.arange(begins[0], len(codes)) - np.repeat(begins, lengths)
    powers = np.multiply.accumulate(np.full(lengths.max(), BASE, np.uint64))
    terms = _salts()[codes[begins[0] :]] * powers[place]
    return Words(mixed(np.add.reduceat(terms, begins - begins[0])), starts)


def ngrams(text: Words, n: int) -> Words:
    """Hashes of all n consecutive words within a text; a text of fewer words has none."""
    total = max(len(text.hashes) - n + 1, 0)
    hashes = _joined(text.hashes, np.arange(total), n)
    owner = np.repeat(np.arange(len(text.counts)), text.counts)
    inside = np.arange(total) + n <= text.starts[1:][owner[:total]]
    starts = np.concatenate(([0], np.cumsum(np.maximum(text.counts - n + 1, 0))))
    return Words(hashes[inside], starts)


def wholes(text: Words, n: int) -> tuple[NDArray[np.int64], Hashes]:
    """The texts of exactly n words, and the hash of all of their words: of the n-gram that each one is."""
    those = np.flatnonzero(text.counts == n)
    return those, _joined(text.hashes, text.starts[those], n)


def mixed(values: Hashes) -> Hashes:
    """Splitmix64's finalizer: every bit of the result depends on all of the value (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def drawn(count: int, start: int = 0) -> Hashes:
    """Fixed pseudo-random numbers: splitmix64's outputs `start` to `start + count - 1`."""
    return mixed((np.arange(start, start + count, dtype=np.uint64) + np.uint64(1)) * BASE)


def _joined(hashes: Hashes, firsts: NDArray[np.int64], n: int) -> Hashes:
    """Hash of n words from each of `firsts` on."""
    total: Hashes = np.zeros(len(firsts), np.uint64)
    for place in range(n):
        total = total * BASE + hashes[firsts + place]
    return mixed(total)


@cache
def _kinds() -> NDArray[np.uint8]:
    letters = (unicodedata.category(chr(code))[0] in "LNM" for code in range(CODES))
    kinds = np.fromiter(letters, np.uint8, CODES)
    for start, stop in UNSPACED:
        kinds[start:stop] *= _WORD
    return kinds


@cache
def _salts() -> Hashes:
    """A random number for each character, zero between words."""
    salts: Hashes = drawn(CODES) * (_kinds() != _NONE)
    return salts
