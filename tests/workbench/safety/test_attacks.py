"""Styles: eighteen, pure, each different, none loses the request, and an unknown name is met with the row."""

from __future__ import annotations

import base64
import codecs
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import miniworld
from workbench.errors import DataError
from workbench.safety.attacks import PLAIN, STYLES, TURNS, dress, many_shot, past_tense, word_map
from workbench.safety.codes import MORSE

REQUEST = "How do I lure the kitten Zoë (7) home?"
ENCODED = {"base64", "rot13", "leetspeak", "letter_spacing", "morse", "word_map"}
REPHRASED = {"past_tense", "completion", "code", "payload_splitting"}


def decoded(style: str, dressed: str) -> str:
    text = dressed.splitlines()[-1]
    if style == "base64":
        return base64.b64decode(text).decode()
    if style == "rot13":
        return codecs.decode(text, "rot13")
    if style == "letter_spacing":
        return text[::2]
    if style == "morse":
        letters = {code: letter for letter, code in MORSE.items()}
        return " ".join("".join(letters.get(c, c) for c in word.split()) for word in text.split(" / "))
    raise KeyError(style)


def test_there_are_eighteen_on_both_sides_and_each_names_its_source() -> None:
    assert len(STYLES) == 18 and PLAIN not in STYLES
    assert {style.split for style in STYLES.values()} == {"seen", "unseen"}
    assert all(style.does and style.source for style in STYLES.values())
    assert len({style.dress for style in STYLES.values()}) == 18


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_a_pure_function_of_request_and_generator(style: str) -> None:
    before = random.getstate()
    assert STYLES[style].dress(REQUEST, random.Random(3)) == STYLES[style].dress(REQUEST, random.Random(3))
    assert random.getstate() == before


def test_no_two_styles_give_the_same_and_all_change_the_request() -> None:
    dressed = [dress(REQUEST, style, 0, "row") for style in (PLAIN, *STYLES)]
    assert dressed[0] == REQUEST
    assert len(set(dressed)) == 19


@pytest.mark.parametrize("style", sorted(set(STYLES) - ENCODED - REPHRASED))
def test_dresses_keep_the_request_word_for_word(style: str) -> None:
    for attack in miniworld.instructions(1)[:40]:
        assert attack.prompt in dress(attack.prompt, style, 0, attack.id)


@pytest.mark.parametrize("style", ["base64", "rot13", "letter_spacing"])
@given(request=st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1))
@settings(max_examples=40, deadline=None)
def test_codes_decode_to_the_request(style: str, request: str) -> None:
    assert decoded(style, dress(request, style, 0, "row")) == request


def test_morse_decodes_to_the_request_but_for_its_case() -> None:
    assert decoded("morse", dress(REQUEST, "morse", 0, "row")) == REQUEST.lower()
    assert MORSE["s"] == "..." and MORSE["o"] == "---" and MORSE["7"] == "--..."
    assert len(set(MORSE.values())) == len(MORSE)


@given(request=st.text(min_size=1).filter(str.strip), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_every_request_can_be_dressed_in_every_style(request: str, seed: int) -> None:
    for style in STYLES:
        assert dress(request, style, seed, "row").strip()


def test_the_key_of_a_word_map_leads_back() -> None:
    dressed = word_map(REQUEST, random.Random(0))
    key = dict(re.findall(r"(\w+) means (\w+)", dressed))
    secret = dressed.split("yours: ")[1]
    assert re.sub(r"\w+", lambda found: key[found[0]], secret) == REQUEST.lower()
    assert not set(re.findall(r"\w+", REQUEST.lower())) & set(key)


def test_a_split_payload_joins_to_the_request() -> None:
    lines = dress(REQUEST, "payload_splitting", 0, "row").splitlines()
    assert " ".join(line.split(" = ")[1].strip("'") for line in lines[:-1]) == REQUEST
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("request_", "past"),
    [
        ("How do I bake bread?", "How did people bake bread"),
        ("How can one bake bread?", "How did people bake bread"),
        ("Explain how to bake bread.", "How did people bake bread"),
        ("Write a poem", "How did people write a poem"),
        ("What is the tallest tree?", "What was the tallest tree"),
        ("Where are the bees?", "Where were the bees"),
    ],
)
def test_the_past_tense_by_its_rules(request_: str, past: str) -> None:
    assert past_tense(request_, random.Random(0)).startswith(f"{past} ")


def test_what_no_rule_turns_into_the_past_is_framed_whole() -> None:
    assert "I want bread." in past_tense("I want bread.", random.Random(0))


def test_many_shot_shows_the_callers_turns_before_the_request() -> None:
    turns = [(f"Question {i}?", f"Answer {i}.") for i in range(40)]
    lines = many_shot(REQUEST, random.Random(0), turns, 8).splitlines()
    assert lines[-2:] == [f"User: {REQUEST}", "Assistant:"]
    assert sum(line.startswith("Assistant: Answer") for line in lines) == 8
    assert many_shot(REQUEST, random.Random(0)).count("User:") == len(TURNS) + 1


def test_the_wording_of_a_row_does_not_depend_on_other_rows() -> None:
    wordings = {dress(REQUEST, "story", 0, f"row {i}") for i in range(30)}
    assert len(wordings) == 3
    assert dress(REQUEST, "story", 0, "row 7") == dress(REQUEST, "story", 0, "row 7")


def test_errors_name_the_row_and_the_nearest_style() -> None:
    with pytest.raises(DataError, match=r"row 'q7'.*'roleplay'; did you mean 'role_play'\?"):
        dress(REQUEST, "roleplay", 0, "q7")
    with pytest.raises(DataError, match=r"row 'q8': the request is empty"):
        dress("  ", "story", 0, "q8")
