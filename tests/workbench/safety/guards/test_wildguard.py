"""WildGuard: three lines or nothing, and soft scores that are those of the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from workbench.errors import DataError
from workbench.models import train_tokenizer
from workbench.safety.guards import WildGuard
from workbench.safety.guards.decoding import Answer, fork
from workbench.safety.guards.wildguard import LABELS, TEMPLATE, exchanges, labelled, parse, soft_score
from workbench.safety.requests import Request

SOUND = "Harmful request: yes\nResponse refusal: no\nHarmful response: yes"


def test_answers_are_those_it_was_taught(wildguard: WildGuard, rows: list[Any]) -> None:
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    for row, verdict in zip(rows, wildguard.judge(prompts, answers), strict=True):
        assert (verdict.is_unsafe(), verdict.refusal, verdict.note) == (row.hazard is not None, False, "")
    for row, reading in zip(rows, wildguard.read(prompts), strict=True):
        assert reading.answers == (row.hazard is not None, None, None)
        assert reading.scores[1:] == (None, None)


def test_soft_scores_are_those_of_the_logits(wildguard: WildGuard, rows: list[Any]) -> None:
    """One plain forward pass over prompt and answer; the softmax of yes and no after each label."""
    (reading,) = wildguard.read([rows[0].prompt], [rows[0].answer])
    tokenizer = wildguard.tokenizer
    yes, no = (tokenizer.encode(word)[1:] for word in (" yes", " no"))
    assert len(yes) == len(no) == 1
    asked = f"{tokenizer.bos_token}{TEMPLATE.format(prompt=rows[0].prompt, response=rows[0].answer)}"
    ids = tokenizer.encode(asked, add_special_tokens=False)
    answer = tokenizer.encode(reading.text, add_special_tokens=False)
    with torch.no_grad():
        logits = wildguard.model(torch.tensor([ids + answer])).logits[0].double()
    places = [len(ids) + t - 1 for t, token in enumerate(answer) if token in (yes[0], no[0])]
    expected = [logits[place, [yes[0], no[0]]].softmax(0)[0].item() for place in places]
    assert reading.scores == pytest.approx(expected, rel=1e-5)


def test_soft_score_is_read_where_the_word_begins() -> None:
    """Byte by byte, a space stands between label and word; the word's first byte decides."""
    tokenizer = train_tokenizer([], 262)
    tokens = tokenizer.encode(SOUND, add_special_tokens=False)
    assert len(tokens) == len(SOUND)
    p = torch.rand(len(SOUND), 2, dtype=torch.float64)
    pair = fork(tokenizer, f"{LABELS[0]}: yes", f"{LABELS[0]}: no")
    assert pair == tuple(tokenizer.convert_tokens_to_ids(letter) for letter in "yn")
    for start in (SOUND.index("yes"), SOUND.index("no\n")):
        score = soft_score(tokenizer, Answer(tokens, p.log(), SOUND), start, pair)
        assert score == pytest.approx(float(p[start, 0] / p[start].sum()))
    assert soft_score(tokenizer, Answer(tokens, p.log(), SOUND), 0, pair) is None


def test_company_in_the_batch_changes_nothing(wildguard: WildGuard, rows: list[Any]) -> None:
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    together = wildguard.read(prompts, answers)
    for one, other in zip(together, replace(wildguard, batch_size=1).read(prompts, answers), strict=True):
        assert one.answers == other.answers
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def test_sound_answers_are_read() -> None:
    assert parse(SOUND, True) == (True, False, True)
    assert parse(f"\n{SOUND}\n", True) == (True, False, True)
    nothing = "Harmful request: no\nResponse refusal: N/A\nHarmful response: N/A"
    assert parse(nothing, False) == (False, None, None)
    assert parse(nothing, True) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        SOUND.replace("yes", "Yes"),
        SOUND.replace("yes", "yes."),
        SOUND.replace("\n", " "),
        SOUND.replace("\n", "\n\n"),
        SOUND + "\nHarmful response: no",
        SOUND.rsplit("\n", 1)[0],
        SOUND.rsplit(" ", 1)[0],
        "\n".join(reversed(SOUND.split("\n"))),
        SOUND.replace("Harmful request: yes", "Harmful request: N/A"),
        "The answers are:\n" + SOUND,
    ],
)
def test_malformed_is_missing(text: str) -> None:
    assert parse(text, True) is None
    assert parse(text, False) is None


@given(st.text(alphabet="HRharmflequsponyN/A: \n", max_size=80))
def test_only_three_sound_lines_are_an_answer(text: str) -> None:
    lines = text.strip().split("\n")
    sound = len(lines) == 3 and all(
        line in {f"{label}: {word}" for word in ("yes", "no", "N/A")}
        for line, label in zip(lines, LABELS, strict=True)
    )
    assert parse(text, True) is None or sound


def test_model_that_is_no_guard_says_nothing_and_never_safe(
    wildguard: WildGuard, untaught: LlamaForCausalLM, rows: list[Any]
) -> None:
    for verdict in replace(wildguard, model=untaught).judge([rows[0].prompt], [rows[0].answer]):
        assert verdict.unsafe is None and verdict.refusal is None and verdict.is_unsafe() is None
        assert verdict.note.startswith("malformed answer")


def test_cut_answer_is_missing(wildguard: WildGuard, rows: list[Any]) -> None:
    (verdict,) = replace(wildguard, max_new_tokens=8).judge([rows[0].prompt])
    assert verdict.unsafe is None


def test_empty_rows_are_named(wildguard: WildGuard) -> None:
    with pytest.raises(DataError, match="row 1: the response is empty"):
        wildguard.judge(["a", "b"], ["c", " \n"])


def test_exchanges_say_of_each_response_what_it_is() -> None:
    asked = {"base_id": "b", "topics": ("t",), "style": "plain", "bare": "Ask?", "prompt": "Ask?"}
    harmful = Request(id="1", harmful=True, answer="Do so.", refusal="Sorry.", **asked)
    harmless = Request(id="2", harmful=False, answer="Do so.", **asked)
    made = exchanges(labelled([harmful, harmless]))
    assert all("Human user:\nAsk?\n" in text for text, _ in made)
    assert ["Do so." in text for text, _ in made] == [False, True, False, False, True]
    read = [parse(answer, row not in (0, 3)) for row, (_, answer) in enumerate(made)]
    assert read == [
        (True, None, None),
        (True, False, True),
        (True, True, False),
        (False, None, None),
        (False, False, False),
    ]


def test_a_guard_trained_through_a_chat_template_is_asked_through_it(
    chatting_wildguard: WildGuard, rows: list[Any]
) -> None:
    rows = rows[::3]
    prompts = [row.prompt for row in rows for _ in range(2)]
    responses = [text for row in rows for text in (row.answer, "Sorry, I will not.")]
    verdicts = chatting_wildguard.judge(prompts, responses)
    expected = [pair for row in rows for pair in ((row.hazard is not None, False), (False, True))]
    assert [(verdict.is_unsafe(), verdict.refusal) for verdict in verdicts] == expected
    alone = chatting_wildguard.judge([row.prompt for row in rows])
    assert [verdict.is_unsafe() for verdict in alone] == [row.hazard is not None for row in rows]
