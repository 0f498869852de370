"""Duplicates: documents that are equal, and documents whose sets of word n-grams are nearly so.

A signature holds, for each of P permutations of the hashes, the least hash of the document's n-grams;
the share of places in which two signatures agree estimates the Jaccard similarity of the sets (Broder
1997, "On the resemblance and containment of documents"), with standard deviation sqrt(J (1 - J) / P).
Signatures are cut into B bands of R hashes; two documents are compared when a whole band agrees, which
happens with probability 1 - (1 - J^R)^B (Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets",
section 3.4). What is compared is decided by the whole signature.

Kept of each kind is the first document. What stays in memory is a few bytes a document, whatever they
hold: signatures are read back by the shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.data.words import BASE, Hashes, Words, drawn, ngrams, wholes
from workbench.progress import progress
from workbench.recipe.preparation import Near

Signatures = NDArray[np.uint32]
Flags = NDArray[np.bool_]
WORDLESS = np.uint32(0xFFFFFFFF)  # in every place of the signature of a text without words
GROUPS_AT_ONCE = 20_000  # of documents that share a band; their signatures are read together


def digests(texts: Sequence[str]) -> Hashes:
    """The first 8 bytes of BLAKE2b of each text: [D] uint64."""
    return np.frombuffer(
        b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts), "<u8"
    )


def repeats(digest: Hashes) -> Flags:
    """Which documents have occurred before: [D] bool."""
    again = np.ones(len(digest), bool)
    again[np.unique(digest, return_index=True)[1]] = False
    return again


def signatures(text: Words, near: Near) -> Signatures:
    """MinHash signatures [D, P] uint32 of the n-grams of texts; fewer than n words are one n-gram."""
    grams = ngrams(text, near.ngram)
    long = np.flatnonzero(grams.counts)
    short = [wholes(text, n) for n in range(1, near.ngram)]
    constants = (drawn(2 * near.permutations) >> np.uint64(32)).astype(np.uint32).reshape(2, -1)
    hashes = _low(grams.hashes)
    found = np.full((near.permutations, len(text.counts)), WORDLESS)
    for place, (multiplier, summand) in enumerate(zip(constants[0] | 1, constants[1], strict=True)):
        if len(long):
            found[place, long] = np.minimum.reduceat(hashes * multiplier + summand, grams.starts[long])
        for those, whole in short:
            found[place, those] = _low(whole) * multiplier + summand
    return np.ascontiguousarray(found.T)


def rows(near: Near) -> int:
    """R: the most hashes a band for which documents at the threshold are as likely compared as not.

    That is where (1 / B)^(1 / R), the similarity at which the probability rises steepest, is not above it.
    """
    fitting = [
        size
        for size in range(1, near.permutations + 1)
        if (size / near.permutations) ** (1 / size) <= near.similarity and near.permutations // size > 0
    ]
    return max(fitting, default=1)


def resembling(
    shards: Sequence[Callable[[], Signatures]], sizes: Sequence[int], dropped: Flags, near: Near
) -> Flags:
    """Which documents resemble one before them.

    Of the documents that are neither dropped nor resembling, no two that share a band are as similar
    as `near.similarity` by their signatures; every resembling one was as similar to an earlier one.

    Args:
        shards: each reads the signatures of a shard, [size, P].
        sizes: documents of each shard, D in all.
        dropped: [D], documents that are out already.
        near: threshold, and length of the signatures.
    """
    out = dropped.copy()
    starts = np.cumsum([0, *sizes])
    size = rows(near)
    bands = range(0, near.permutations - size + 1, size)
    with progress("near-duplicates", len(bands), "bands") as advance:
        for first in bands:
            _meet(shards, starts, first, size, out, near)
            advance()
    return out & ~dropped


def _meet(
    shards: Sequence[Callable[[], Signatures]],
    starts: NDArray[np.int64],
    first: int,
    size: int,
    out: Flags,
    near: Near,
) -> None:
    """Compare the documents that share the band of `size` hashes from `first` on."""
    keys = np.concatenate([_band(read(), first, size) for read in shards])
    members, cuts = _groups(keys, out)
    for at in range(0, len(cuts), GROUPS_AT_ONCE):
        some = members[cuts[at] : cuts[at + GROUPS_AT_ONCE] if at + GROUPS_AT_ONCE < len(cuts) else None]
        found = _gathered(shards, starts, some)
        inner = cuts[at + 1 : at + GROUPS_AT_ONCE] - cuts[at]
        for group, its in zip(np.split(some, inner), np.split(found, inner), strict=True):
            _compare(group, its, out, near)


def _low(hashes: Hashes) -> NDArray[np.uint32]:
    return (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _band(shard: Signatures, first: int, size: int) -> Hashes:
    """One number for each document's band; 0 for a document without words."""
    keys: Hashes = np.ones(len(shard), np.uint64)
    for place in range(first, first + size):
        keys = keys * BASE + shard[:, place]
    return np.where((shard == WORDLESS).all(axis=1), np.uint64(0), keys)


def _groups(keys: Hashes, out: Flags) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents still in that share their key with another, group by group, each in rising order.

    Returns:
        The documents, and where among them each group begins.
    """
    alive = np.flatnonzero(~out & (keys != 0))
    _, key, counts = np.unique(keys[alive], return_inverse=True, return_counts=True)
    shared = counts[key] > 1
    order = np.argsort(key[shared], kind="stable")
    cuts = np.cumsum(counts[counts > 1])
    return alive[shared][order], np.concatenate(([0], cuts[:-1])) if len(cuts) else cuts


def _compare(members: NDArray[np.int64], found: Signatures, out: Flags, near: Near) -> None:
    """Keep the first of the members, drop what resembles it, and go on with the rest."""
    while len(members) > 1:
        like = (found[1:] == found[0]).mean(axis=1) >= near.similarity
        out[members[1:][like]] = True
        members, found = members[1:][~like], found[1:][~like]


def _gathered(
    shards: Sequence[Callable[[], Signatures]], starts: NDArray[np.int64], members: NDArray[np.int64]
) -> Signatures:
    """Signatures of documents out of their shards, in the order of `members`: [M, P]."""
    owner = np.searchsorted(starts, members, side="right") - 1
    found: Signatures | None = None
    for shard in np.unique(owner):
        its = owner == shard
        part = shards[shard]()[members[its] - starts[shard]]
        if found is None:
            found = np.empty((len(members), part.shape[1]), part.dtype)
        found[its] = part
    assert found is not None
    return found
