"""Coined words are new words."""

import random

from workbench.miniworld.words import BASE_SOUND, Coiner


def test_no_word_is_coined_twice_or_taken() -> None:
    first = Coiner(BASE_SOUND, random.Random("words")).words(200, syllables=2)
    again = Coiner(BASE_SOUND, random.Random("words"), taken=set(first)).words(200, syllables=2)
    assert len(set(first) | set(again)) == 400
