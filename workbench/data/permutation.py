"""Shuffles with random access: a keyed permutation of [0, n) whose every value costs O(1) time and no memory.

A Feistel network over pairs (left, right) with left in [0, rows) and right in [0, columns), as in
the generalised Feistel cipher of Black and Rogaway, "Ciphers with arbitrary finite domains"
(CT-RSA 2002), algorithm 3: a round adds a keyed hash of one half to the other, modulo its range, and
so can be undone, whatever the hash. rows x columns is the least rectangle of about sqrt(n) rows
that holds n; a value that falls outside of [0, n) is sent through again (cycle walking), which
keeps the map one-to-one. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.uint64]

ROUNDS = 6  # four make a pseudorandom permutation (Luby and Rackoff 1988); two more for tiny domains
GOLDEN = 0x9E3779B97F4A7C15  # increment of SplitMix64


def key(*parts: int | str) -> int:
    """A 64-bit key of the given parts; different parts give unrelated keys, on every machine alike."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def permute(index: Integers, size: Integers, keys: Integers) -> Integers:
    """Where the permutation of [0, size) with the given key sends each index.

    Args:
        index: [N] uint64, each below its size.
        size: [N] uint64, at least 1; every element may have a permutation of its own.
        keys: [N] uint64, which of the permutations of [0, size).

    Returns:
        [N] uint64, each below its size.
    """
    rows = np.ceil(np.sqrt(size)).astype(np.uint64)
    columns = (size + rows - np.uint64(1)) // rows
    place = _feistel(index, rows, columns, keys)
    outside = np.flatnonzero(place >= size)
    while outside.size:
        place[outside] = _feistel(place[outside], rows[outside], columns[outside], keys[outside])
        outside = outside[place[outside] >= size[outside]]
    return place


def _feistel(index: Integers, rows: Integers, columns: Integers, keys: Integers) -> Integers:
    left, right = index // columns, index % columns
    for turn in range(ROUNDS):
        round_keys = keys + np.uint64((turn + 1) * GOLDEN % 2**64)  # modulo 2^64, as all sums here
        if turn % 2 == 0:
            left = (left + _hash(right, round_keys) % rows) % rows
        else:
            right = (right + _hash(left, round_keys) % columns) % columns
    return left * columns + right


def _hash(value: Integers, keys: Integers) -> Integers:
    z = (value + np.uint64(1)) * np.uint64(GOLDEN) ^ keys
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
