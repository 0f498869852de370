"""What an evaluation asks is found wherever it stands, and nothing else."""

import numpy as np
import pytest

from workbench.data.decontamination import Questions
from workbench.data.words import words
from workbench.recipe.preparation import Decontamination


def spelt(rng: np.random.Generator, count: int) -> str:
    return " ".join(f"w{number}" for number in rng.integers(1000, size=count))


def test_finds_what_a_plain_search_finds() -> None:
    rng = np.random.default_rng(0)
    tasks = {name: [spelt(rng, int(n)) for n in rng.integers(1, 40, size=30)] for name in ("a", "b", "c")}
    settings = Decontamination(ngram=13, shortest=8)
    texts = []
    for _ in range(300):
        question = tasks[str(rng.choice(list(tasks)))][rng.integers(30)].split()
        start = int(rng.integers(len(question)))
        piece = question[start : start + int(rng.integers(1, 40))]
        texts.append(f"{spelt(rng, 20)} {' '.join(piece)} {spelt(rng, 20)}")

    def asks(text: str, question: str) -> bool:
        count = len(question.split())
        n = min(count, settings.ngram)
        pieces = [" ".join(question.split()[i : i + n]) for i in range(count - n + 1)]
        return count >= settings.shortest and any(f" {piece} " in f" {text} " for piece in pieces)

    expected = {
        number: {name for name, questions in tasks.items() if any(asks(text, q) for q in questions)}
        for number, text in enumerate(texts)
    }
    found = Questions(tasks, settings).found(words(texts))
    assert found == {number: names for number, names in expected.items() if names}
    assert 50 < len(found) < 250


def test_case_and_punctuation_do_not_hide_a_question() -> None:
    asked = {"capitals": ["What is the capital of the country that lies north of it?"]}
    text = "He asked: WHAT IS THE CAPITAL -- of the country, that lies north of it... and left."
    assert Questions(asked, Decontamination()).found(words([text])) == {0: {"capitals"}}


def test_a_question_of_two_tasks_counts_for_both() -> None:
    asked = {"one": ["a b c d e f g h"], "two": ["x", "a b c d e f g h"], "three": ["a b c d e f g i"]}
    assert Questions(asked, Decontamination()).found(words(["", "a b c d e f g h"])) == {1: {"one", "two"}}


@pytest.mark.parametrize("tasks", [{}, {"short": ["a b c"]}, {"empty": []}])
def test_nothing_to_look_for_is_found_nowhere(tasks: dict[str, list[str]]) -> None:
    assert Questions(tasks, Decontamination()).found(words(["a b c", ""])) == {}
