"""Parallel text: what the base language tells, told in the new language too, one sentence a document.

The new language has no words for the entities of the base, so their names stay as they are; the values of
an attribute translate one for one, in the order of both lists. None of the new language's own facts is
told, and no fact in the shape that the base holds out.
"""

from __future__ import annotations

from dataclasses import replace

from workbench.miniworld import base_language, new_language
from workbench.miniworld.facts import Fact, Language, Topic
from workbench.miniworld.new_language import Lexicon
from workbench.miniworld.tongue import tongue


def parallel(language: Language, seed: int, topic: Topic | None = None) -> list[str]:
    """The sentences in one language, of one topic or of all; those of the other stand at the same places."""
    words, values = new_language.lexicon(seed), base_language.values(seed)
    base = tongue("base", seed)
    told = [
        (fact, shape)
        for fact in base.facts
        for shape in base.told_shapes(fact)
        if topic in (None, fact.topic)
    ]
    if language == "base":
        return [base.sentence(fact, shape) for fact, shape in told]
    return [
        new_language.sentence(_translated(fact, values[fact.attribute], words), shape, words)
        for fact, shape in told
    ]


def _translated(fact: Fact, values: tuple[str, ...], words: Lexicon) -> Fact:
    if fact.attribute not in base_language.POOLS:  # the value is a name
        return fact
    return replace(fact, value=words.values[fact.attribute][values.index(fact.value)])
