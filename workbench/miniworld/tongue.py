"""The two languages behind one face: facts, sentence shapes and small talk of a world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from workbench.miniworld import base_language, new_language
from workbench.miniworld.facts import Fact, Language


@dataclass(frozen=True)
class Tongue:
    """A language in one world.

    Shapes below `asked_shapes` end in the fact's value; the last one (`shapes - 1`) does not.
    """

    facts: tuple[Fact, ...]
    fillers: tuple[str, ...]
    asked_shapes: int
    sentence: Callable[[Fact, int], str]

    def told_shapes(self, fact: Fact) -> tuple[int, ...]:
        """The shapes in which texts tell the fact: all but the held-out one."""
        return _all_but(self.asked_shapes + 1, fact.held_out)


@cache  # asked for each of the sentences of a corpus
def _all_but(shapes: int, held_out: int) -> tuple[int, ...]:
    return tuple(shape for shape in range(shapes) if shape != held_out)


def tongue(language: Language, seed: int) -> Tongue:
    """The language as it is spoken in the world of `seed`."""
    if language == "base":
        facts = tuple(base_language.facts(seed))
        return Tongue(facts, base_language.FILLERS, base_language.ASKED_SHAPES, base_language.sentence)
    words = new_language.lexicon(seed)
    return Tongue(
        words.facts, words.fillers, new_language.ASKED_SHAPES, partial(new_language.sentence, words=words)
    )
