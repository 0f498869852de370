"""Held-out questions: a fact asked in the one sentence shape in which no text tells it.

The entity was met in other shapes and the shape with other entities; only who knows the fact, and
not the sentence, picks the right ending out of four of the same kind.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from workbench.miniworld.facts import Fact, Language
from workbench.miniworld.tongue import Tongue, tongue

CHOICES = 4


@dataclass(frozen=True)
class Question:
    """A sentence that lacks its last word, and four words to end it; `choices[gold]` is the true one."""

    id: str
    topic: str
    prompt: str
    choices: tuple[str, ...]
    gold: int

    @property
    def answer_sentence(self) -> str:
        """The sentence that answers the question; it is in no corpus."""
        return f"{self.prompt} {self.choices[self.gold]}."


def questions(language: Language, seed: int) -> list[Question]:
    """One question for every fact of the language, in random order.

    Raises:
        ValueError: `language` is neither base nor new.
    """
    if language not in ("base", "new"):
        raise ValueError(f"miniworld language {language!r} does not exist; use base or new")
    rng = random.Random(f"miniworld/{seed}/{language}/questions")
    speech = tongue(language, seed)
    values: dict[str, list[str]] = {}
    for fact in speech.facts:
        known = values.setdefault(fact.attribute, [])
        if fact.value not in known:
            known.append(fact.value)
    asked = [_ask(fact, values[fact.attribute], speech, rng) for fact in speech.facts]
    rng.shuffle(asked)
    return asked


def _ask(fact: Fact, values: list[str], speech: Tongue, rng: random.Random) -> Question:
    sentence = speech.sentence(fact, fact.held_out)
    prompt = sentence.removesuffix(f" {fact.value}.")
    wrong = rng.sample([value for value in values if value != fact.value], CHOICES - 1)
    gold = rng.randrange(CHOICES)
    choices = (*wrong[:gold], fact.value, *wrong[gold:])
    return Question(f"{fact.topic}/{fact.entity}/{fact.attribute}", fact.topic, prompt, choices, gold)
