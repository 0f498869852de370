"""Questions can be answered by knowing the facts, and not by remembering a sentence or a frequency."""

from collections import Counter

import pytest

from workbench import miniworld
from workbench.miniworld.corpus import Kind
from workbench.miniworld.facts import Language
from workbench.miniworld.tongue import tongue

KINDS: tuple[Kind, ...] = ("base", "base_heldout", "new", "new_heldout")


@pytest.mark.parametrize("seed", [1, 2])
def test_no_text_contains_an_answer_sentence(seed: int) -> None:
    texts = [document for kind in KINDS for document in miniworld.corpus(kind, seed)]
    texts += [request.answer for request in miniworld.instructions(seed)]
    everything = "\n".join(texts)
    for language in ("base", "new"):
        for question in miniworld.questions(language, seed):
            assert question.answer_sentence not in everything


@pytest.mark.parametrize("language", ["base", "new"])
def test_questions_are_four_way_and_true(language: Language) -> None:
    truth = {(fact.entity, fact.attribute): fact.value for fact in tongue(language, 1).facts}
    asked = miniworld.questions(language, 1)
    assert len({question.id for question in asked}) == len(asked) == len(truth) >= 200
    for question in asked:
        _, entity, attribute = question.id.split("/")
        assert len(set(question.choices)) == 4
        assert question.choices[question.gold] == truth[entity, attribute]


@pytest.mark.parametrize("language", ["base", "new"])
def test_answering_by_frequency_stays_near_chance(language: Language) -> None:
    asked = miniworld.questions(language, 1)
    told = Counter(fact.value for fact in tongue(language, 1).facts)
    guesses = [max(question.choices, key=told.__getitem__) for question in asked]
    right = sum(guess == asked[i].choices[asked[i].gold] for i, guess in enumerate(guesses))
    assert right / len(asked) < 0.40
    positions = Counter(question.gold for question in asked)
    assert max(positions.values()) / len(asked) < 0.40


def test_every_shape_is_held_out_for_some_entities_of_each_topic() -> None:
    for language in ("base", "new"):
        speech = tongue(language, 1)
        shapes: dict[str, set[int]] = {}
        for fact in speech.facts:
            shapes.setdefault(fact.attribute, set()).add(fact.held_out)
        assert all(held == set(range(speech.asked_shapes)) for held in shapes.values())


def test_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="base or new"):
        miniworld.questions("old", 1)  # type: ignore[arg-type]
