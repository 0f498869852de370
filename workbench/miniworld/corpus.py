"""Texts of the world: short documents about one entity each, one sentence a line.

Quality is a property of how a document was made:

- `high`: facts only;
- `medium`: fewer facts, with small talk between them;
- `low`: the words of such a document in random order, from which nothing can be learnt.

Topics are not equally frequent, and beasts are rare for their number, so that a mixture can be
wrong and a curriculum can put it right. A crawl of the new language is poor text for the most part, so that
choosing has a price and a prize. Held-out texts are of high quality and none of them is a
training text; they tell the same facts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from workbench.miniworld.facts import Fact, Language, Topic
from workbench.miniworld.parallel import parallel
from workbench.miniworld.tongue import Tongue, tongue

Kind = Literal["base", "base_heldout", "new", "new_heldout", "new_crawl"]
Parallel = Literal["base_parallel", "new_parallel"]
Quality = Literal["high", "medium", "low"]

DOCUMENTS: Mapping[Kind, int] = {
    "base": 8000,
    "base_heldout": 400,
    "new": 8000,
    "new_heldout": 400,
    "new_crawl": 24000,
}
_HELD_OUT: Mapping[Quality, float] = {"high": 1.0}
QUALITIES: Mapping[Kind, Mapping[Quality, float]] = {
    "base": {"high": 0.85, "medium": 0.15, "low": 0.0},
    "base_heldout": _HELD_OUT,
    "new": {"high": 0.75, "medium": 0.15, "low": 0.10},
    "new_heldout": _HELD_OUT,
    "new_crawl": {"high": 0.10, "medium": 0.20, "low": 0.70},
}
TOPICS: Mapping[Topic, float] = {"people": 0.42, "places": 0.23, "things": 0.22, "beasts": 0.13}


@dataclass(frozen=True)
class Document:
    """A text with what it is about and how good it is."""

    text: str
    topic: Topic
    quality: Quality


@lru_cache(maxsize=8)  # a run asks for the same few again: parts, topics, and what held-out texts must not be
def documents(kind: Kind, seed: int) -> tuple[Document, ...]:
    """The texts of one corpus in the world of `seed`, in random order; the same ones each time.

    Raises:
        ValueError: `kind` is not one of base, base_heldout, new, new_heldout, new_crawl.
    """
    if kind not in DOCUMENTS:
        raise ValueError(f"miniworld corpus {kind!r} does not exist; use one of {', '.join(DOCUMENTS)}")
    language: Language = "base" if kind.startswith("base") else "new"
    speech = tongue(language, seed)
    biographies = _by_entity(speech)
    rng = random.Random(f"miniworld/{seed}/{kind}")
    apart: Mapping[Kind, Kind] = {
        "base_heldout": "base",
        "new_heldout": "new",
        "new_crawl": "new_heldout",
    }
    unwanted = {document.text for document in documents(apart[kind], seed)} if kind in apart else set()
    qualities = QUALITIES[kind]

    told: list[Document] = []
    while len(told) < DOCUMENTS[kind]:
        topic = rng.choices(list(TOPICS), list(TOPICS.values()))[0]
        quality = rng.choices(list(qualities), list(qualities.values()))[0]
        text = _tell(rng.choice(biographies[topic]), quality, speech, rng)
        if text not in unwanted:
            told.append(Document(text, topic, quality))
    return tuple(told)


def corpus(kind: Kind | Parallel, seed: int, topic: Topic | None = None) -> list[str]:
    """The texts of `documents(kind, seed)` alone, or of `parallel`: all of them or those of one topic."""
    if kind == "base_parallel" or kind == "new_parallel":
        return parallel("base" if kind == "base_parallel" else "new", seed, topic)
    return [document.text for document in documents(kind, seed) if topic in (None, document.topic)]


def _by_entity(speech: Tongue) -> dict[Topic, list[list[Fact]]]:
    facts: dict[Topic, dict[str, list[Fact]]] = {topic: {} for topic in TOPICS}
    for fact in speech.facts:
        facts[fact.topic].setdefault(fact.entity, []).append(fact)
    return {topic: list(entities.values()) for topic, entities in facts.items()}


def _tell(facts: list[Fact], quality: Quality, speech: Tongue, rng: random.Random) -> str:
    chosen = rng.sample(facts, len(facts) if quality == "high" else 2)
    lines = [speech.sentence(fact, rng.choice(speech.told_shapes(fact))) for fact in chosen]
    if quality == "medium":
        lines = [line for fact_line in lines for line in (fact_line, rng.choice(speech.fillers))]
    if quality == "low":
        # Without full stops no held-out sentence can arise by accident.
        words = " ".join(lines).replace(".", "").split()
        rng.shuffle(words)
        return " ".join(words)
    return "\n".join(lines)
