"""What a writer gives becomes a document, or is dropped for a reason that is said."""

from __future__ import annotations

import pytest

from workbench.data import synthetic
from workbench.data.synthetic import Pair, Written
from workbench.recipe.preparation import Synthetic

SNIPPET = "Owls hunt at night because their prey is awake then."


def settings(**more: object) -> Synthetic:
    return Synthetic.model_validate({"snippets": "s", "writer": {"path": "m"}, "documents": 1, **more})


def test_a_prompt_holds_the_snippet_as_it_is() -> None:
    assert synthetic.prompt(settings(), "a {b} $c") == "a {b} $c\n\nQuestion:"


@pytest.mark.parametrize("text", [" Why? Answer: So.", "Question: Why?\nAnswer: So.\n"])
def test_a_pair_is_read_with_and_without_its_lead(text: str) -> None:
    pair = synthetic.parse(settings(), text)
    assert pair == Pair("Why?", "So.")
    assert synthetic.document(settings(), SNIPPET, pair) == f"{SNIPPET}\n\nQuestion: Why?\nAnswer: So."


@pytest.mark.parametrize("text", ["", "Why?", "Answer: So.", "Why? Answer:"])
def test_half_a_pair_is_none(text: str) -> None:
    assert synthetic.parse(settings(), text) is None


GOOD = "When do owls hunt? Answer: They hunt at night."


@pytest.mark.parametrize(
    ("written", "more", "fault"),
    [
        (Written(GOOD, True), {}, None),
        (Written(None, False), {}, "too long for the writer"),
        (Written(GOOD, False), {}, "did not end"),
        (Written(GOOD, False), {"discard": "none"}, None),
        (Written("When do owls hunt?", True), {}, "no answer"),
        (Written("When do owls hunt? Answer: Night.", True), {}, "short"),
        (Written("Owls? Answer: They hunt at night.", True), {}, "short"),
        (Written("When do owls hunt? Answer: Parrots speak Spanish well.", True), {}, "not from the snippet"),
        (Written("When do owls hunt? Answer: Parrots speak Spanish well.", True), {"overlap": 0.0}, None),
    ],
)
def test_each_filter_drops_what_it_is_for(
    written: Written, more: dict[str, object], fault: str | None
) -> None:
    assert synthetic.fault(settings(**more), SNIPPET, written) == fault


def test_overlap_counts_words_in_any_case_and_script() -> None:
    assert synthetic.overlap("Night, prey - AND cheese!", SNIPPET) == 0.5
    assert synthetic.overlap("夜里吃", "猫头鹰夜里捕猎") == pytest.approx(2 / 3)
    assert synthetic.overlap("...", SNIPPET) == 0
