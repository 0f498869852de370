"""Codes: what was written in one is read again, and what is in none stays as it is."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workbench import miniworld
from workbench.safety import codes
from workbench.safety.attacks import STYLES, read, word_map

WRITE: dict[str, Callable[[str], str]] = {
    "base64": codes.to_base64,
    "rot13": codes.rot13,
    "leetspeak": codes.to_leetspeak,
    "letter_spacing": codes.to_spaced,
    "morse": codes.to_morse,
}
LOSSY = {"leetspeak", "morse"}  # the case of letters
TOLD = [(each.prompt, each.answer, each.refusal) for each in miniworld.instructions(1)[:120]]
SAID = sorted({text for texts in TOLD for text in texts if text})
KEYED = word_map("How do I wake the beast Mora?", random.Random(0))
KEY = codes.word_key("How do I wake the beast Mora?", random.Random(0))


def alike(one: str, other: str, style: str) -> bool:
    return one.lower() == other.lower() if style in LOSSY else one == other


def test_every_style_in_a_code_has_an_inverse() -> None:
    assert {name for name, style in STYLES.items() if style.read} == set(WRITE)


@pytest.mark.parametrize("style", WRITE)
def test_sentences_are_read_in_code_and_left_alone_in_plain_words(style: str) -> None:
    for text in SAID if style != "rot13" else [text for text in SAID if len(text) > 30]:
        assert alike(read(WRITE[style](text), style, ""), text, style)
        assert read(text, style, "") == text


@pytest.mark.parametrize("style", WRITE)
@given(text=st.text())
@settings(max_examples=60, deadline=None)
def test_reading_is_total_and_a_style_without_a_code_changes_nothing(style: str, text: str) -> None:
    assert isinstance(read(text, style, ""), str)
    for other in ("plain", "story", "prefilled-10"):
        assert read(text, other, KEYED) == text


@given(text=st.text(st.characters(exclude_categories=["C"]), min_size=10))
@settings(max_examples=100, deadline=None)
def test_base64_leads_back(text: str) -> None:
    assert codes.from_base64(codes.to_base64(text)) == text


@given(words=st.lists(st.text(string.ascii_letters + "ëß", min_size=1), min_size=1))
@settings(max_examples=100, deadline=None)
def test_spaced_letters_lead_back(words: list[str]) -> None:
    text = " ".join(words)
    assume(len(text.replace(" ", "")) >= 5)
    assert codes.from_spaced(codes.to_spaced(text)) == text


@given(words=st.lists(st.text("".join(codes.MORSE), min_size=1), min_size=1))
@settings(max_examples=100, deadline=None)
def test_morse_leads_back(words: list[str]) -> None:
    text = " ".join(words)
    assume(len(text.replace(" ", "")) >= 3 and len({*text} - {" "}) > 1)
    assert codes.from_morse(codes.to_morse(text)) == text


@given(words=st.lists(st.sampled_from([*KEY, "herb", "gate"]), min_size=1))
@settings(max_examples=60, deadline=None)
def test_a_word_map_leads_back_under_the_key_of_the_prompt(words: list[str]) -> None:
    text = " ".join(words)
    assert read(codes.to_words(text, KEY), "word_map", KEYED) == text
    assert read(text, "word_map", KEYED) == text


def test_what_stands_around_a_code_stays() -> None:
    answer = "To wake the beast Mora, burn a herb at its gate."
    for style, write in WRITE.items():
        if style != "leetspeak":
            said = read(f"Sure. Here it is for you:\n{write(answer)}\nThat is all there is to it.", style, "")
            assert alike(said, f"Sure. Here it is for you:\n{answer}\nThat is all there is to it.", style)


def test_base64_that_was_cut_is_read_as_far_as_it_goes() -> None:
    text = "To wake the beast Zoë, burn a herb at its gate."
    code = codes.to_base64(text)
    for length in range(14, len(code)):
        found = codes.from_base64(code[:length])
        assert text.startswith(found) and len(found.encode()) >= length * 3 // 4 - 3
    folded = "\n".join(code[start : start + 20] for start in range(0, len(code), 20))
    assert codes.from_base64(folded) == text


@pytest.mark.parametrize(
    "text",
    [
        "...",
        "- - - -",
        "3 - 6 6 - 1",
        "Questions and answers",
        "a - b\n- c",
        "MP3 files of 1999",
        "Is it 4 or 5?",
        "",
        "x y",
    ],
)
def test_what_only_looks_like_a_code_stays(text: str) -> None:
    for style in WRITE:
        assert read(text, style, "") == text
