"""The rows of DeRTa as sources of the one loop, made of the triplets of a safety stage.

The chosen answer of a triplet is r, the rejected one h. A harmful answer that has no room in a sequence is
cut at its end, for its places are asked for one by one; nothing else is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from workbench import data, models, storage
from workbench.data import Row, TokenFile, Tokens
from workbench.errors import DataError
from workbench.recipe.safety import Safety
from workbench.safety import derta
from workbench.safety.derta import PREFIXED, TRANSITIONS
from workbench.safety.triplets import Triplet
from workbench.stages import triplets
from workbench.stages.identity import VERSIONS
from workbench.stages.job import Job

COUNTS = "derta.json"


class Told(NamedTuple):
    """The tokens of a triplet: q as it is asked, r with the mark that ends it, h without."""

    triplet: str
    q: Tokens
    r: Tokens
    h: Tokens


def token_files(job: Job, tokenizer_folder: Path) -> dict[str, TokenFile]:
    """The rows of both terms, by the names that the mixture has for them.

    Raises:
        DataError: there are too few triplets, their safe answers do not begin alike, or one has no room in
            a sequence; names it.
    """
    folder = _made(job, tokenizer_folder)
    return {name: TokenFile(folder / name) for name in (PREFIXED, TRANSITIONS)}


def counts(job: Job, tokenizer_folder: Path) -> dict[str, Any]:
    """What a result tells of the rows: how many triplets, the refusal token, and harmful answers cut."""
    found: dict[str, Any] = storage.read_json(_made(job, tokenizer_folder) / COUNTS)
    return found


def _made(job: Job, tokenizer_folder: Path) -> Path:
    stage = job.variant.stage
    assert isinstance(stage, Safety)
    tokenizer, length, seed = models.load_tokenizer(tokenizer_folder), stage.sequence_length, job.recipe.seed
    settings = stage.derta
    key = {
        "kind": "derta rows",
        "version": VERSIONS["tokens"],
        "triplets": job.triplets_fingerprint,
        "size": job.variant.triplets,
        **settings.model_dump(include={"dropout", "opener"}),
        "tokenizer": storage.file_digest(tokenizer_folder / "tokenizer.json"),
        "chat_template": tokenizer.chat_template,
        "length": length,
        "seed": seed,
    }

    def build(out: Path) -> None:
        triplets.make(job)
        read = triplets.read(job)
        said = [settings.opener] if settings.opener else [triplet.chosen for triplet in read]
        opener = derta.refusal_token(tokenizer, said)
        told = _told(read, tokenizer)
        prefixed = _prefixed(told, length, seed)
        data.write_rows(prefixed, length, tokenizer, out / PREFIXED, "refusals behind harmful prefixes")
        cut, transitions = _transitions(told, length, seed, opener.token, settings.dropout)
        data.write_rows(transitions, length, tokenizer, out / TRANSITIONS, "transitions to refusal")
        facts = {"triplets": len(read), "refusal_token": opener.text, "harmful_answers_cut": cut}
        storage.write_json(out / COUNTS, facts)

    return job.store.make(storage.digest(key), build)


def _told(read: Sequence[Triplet], tokenizer: PreTrainedTokenizerBase) -> list[Told]:
    """Tokens of each triplet."""
    parts = []
    for triplet in read:
        try:
            parts += [data.parted(tokenizer, triplet.prompt, x) for x in (triplet.chosen, triplet.rejected)]
        except DataError as error:
            raise DataError(f"triplet {triplet.id}: {error}") from error
    pairs = list(data.tokenized(parts, tokenizer))
    safe, harmful = pairs[::2], pairs[1::2]
    return [
        Told(triplet.id, *one, other[1][:-1]) for triplet, one, other in zip(read, safe, harmful, strict=True)
    ]


def _prefixed(told: Sequence[Told], length: int, seed: int) -> list[Row]:
    """Rows of the first term; k is drawn up to where r still has room."""
    rows = []
    for number, (triplet, q, r, h) in enumerate(told):
        room = length - len(q) - len(r)
        if room < 0:
            raise DataError(_no_room(triplet, "prompt and safe answer", len(q) + len(r), length))
        k = derta.prefix_length(number, min(len(h), room), _rng(seed, PREFIXED, triplet))
        rows.append(derta.prefixed(q, h, r, k))
    return rows


def _transitions(
    told: Sequence[Told], length: int, seed: int, refusal: int, dropout: float
) -> tuple[int, list[Row]]:
    """How many harmful answers are cut, and the rows of the second term."""
    cut, rows = 0, []
    for triplet, q, _, h in told:
        room = length - len(q)
        if room < 1:
            raise DataError(_no_room(triplet, "prompt", len(q), length))
        cut += len(h) > room
        rows.append(derta.transition(q, h[:room], refusal, dropout, _rng(seed, TRANSITIONS, triplet)))
    return cut, rows


def _rng(seed: int, source: str, triplet: str) -> random.Random:
    return random.Random(f"derta/{seed}/{source}/{triplet}")


def _no_room(triplet: str, what: str, size: int, length: int) -> str:
    return f"triplet {triplet}: {size} tokens of {what}, but a sequence has {length}; raise sequence_length"
