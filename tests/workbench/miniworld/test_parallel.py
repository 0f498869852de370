"""Both sides tell the same facts, and neither tells what is asked."""

from __future__ import annotations

from itertools import chain

from workbench.miniworld import corpus, questions
from workbench.miniworld.parallel import parallel


def test_sides_tell_the_same_of_the_same_entities() -> None:
    old, new = parallel("base", 1), parallel("new", 1)
    assert len(old) == len(new) > 900 and old != new
    assert len(set(zip(old, new, strict=True))) == len(old)
    names = [{word.strip(".") for word in text.split() if word[0].isupper()} for text in new]
    assert all(any(name in text for name in found) for found, text in zip(names, old, strict=True))


def test_topics_are_parts_and_corpora() -> None:
    assert corpus("new_parallel", 1) == parallel("new", 1)
    parts = [parallel("new", 1, topic) for topic in ("people", "places", "things", "beasts")]
    assert sorted(chain.from_iterable(parts)) == sorted(parallel("new", 1))


def test_held_out_sentences_are_not_told() -> None:
    asked = {question.answer_sentence for question in questions("base", 1)}
    assert not asked & set(parallel("base", 1))
