"""The new language: words coined for the seed, verb first, a particle before each noun.

| shape | gloss |
|---|---|
| 0 | VERB subject NAME object VALUE |
| 1 | the NOUN of NAME is VALUE |
| 2 | NAME has as NOUN object VALUE |
| 3 | past subject NAME VERB-past object VALUE |
| 4 | VALUE object VERB subject NAME (told, never asked) |

Each attribute has one verb and one noun of its own; particles and endings serve them all.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from workbench.miniworld.facts import ATTRIBUTES, ENTITIES, VALUES_EACH, Fact, draw
from workbench.miniworld.words import NEW_SOUND, Coiner

ASKED_SHAPES = 4


@dataclass(frozen=True)
class Lexicon:
    """The words of the new language in one world."""

    subject: str
    object: str
    of: str
    article: str
    copula: str
    has: str
    past: str
    past_ending: str
    verbs: Mapping[str, str]
    nouns: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]]
    fillers: tuple[str, ...]
    facts: tuple[Fact, ...]


@lru_cache(maxsize=8)
def lexicon(seed: int) -> Lexicon:
    """Words and facts of the new language in the world of `seed`."""
    rng = random.Random(f"miniworld/{seed}/new/facts")
    coiner = Coiner(NEW_SOUND, rng, taken=set())
    subject, object_, of, article, copula, has, past, past_ending = coiner.words(8, syllables=1)
    attributes = [attribute for group in ATTRIBUTES.values() for attribute in group]
    verbs = dict(zip(attributes, coiner.words(len(attributes), syllables=1), strict=True))
    nouns = dict(zip(attributes, coiner.words(len(attributes), syllables=1), strict=True))
    names = {topic: coiner.names(count) for topic, count in ENTITIES.items()}
    values = {attribute: coiner.words(VALUES_EACH, syllables=2) for attribute in attributes}
    values |= {"home": names["places"][:VALUES_EACH], "river": coiner.names(VALUES_EACH)}
    small_talk = coiner.words(8, syllables=1)
    fillers = tuple(" ".join(rng.sample(small_talk, 4)) + "." for _ in range(6))
    facts = tuple(draw(names, values, ASKED_SHAPES, rng))
    return Lexicon(
        subject, object_, of, article, copula, has, past, past_ending, verbs, nouns, values, fillers, facts
    )


def sentence(fact: Fact, shape: int, words: Lexicon) -> str:
    """The fact as one sentence in the words of its world."""
    verb, noun = words.verbs[fact.attribute], words.nouns[fact.attribute]
    name, value = fact.entity, fact.value
    order = (
        (verb, words.subject, name, words.object, value),
        (words.article, noun, words.of, name, words.copula, value),
        (name, words.has, noun, words.object, value),
        (words.past, words.subject, name, verb + words.past_ending, words.object, value),
        (value, words.object, verb, words.subject, name),
    )[shape]
    return " ".join(order) + "."
