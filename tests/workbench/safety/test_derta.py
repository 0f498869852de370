"""Labels of DeRTa: harmful tokens are read and never asked for, and s is asked for in their place only."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from workbench.data import NO_TARGET, Row, answered, parted, tokenized
from workbench.errors import DataError, ModelError, RecipeError
from workbench.models.tokenizer import train_tokenizer
from workbench.safety.derta import mixture, prefix_length, prefixed, refusal_token, transition

PROMPT, HARMFUL, SAFE, S = (1, 2, 3), (20, 21, 22, 23, 24), (30, 31, 32), 30
ids = st.lists(st.integers(0, 60), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = ["Sorry, I cannot help with that. No. Sorry."] * 20
    return train_tokenizer(texts, 300)


def test_a_prefix_row_scores_the_safe_answer_only() -> None:
    row = prefixed(PROMPT, HARMFUL, SAFE, 2)
    assert row == Row((1, 2, 3, 20, 21, 30, 31, 32), (NO_TARGET,) * 5 + SAFE)
    assert prefixed(PROMPT, HARMFUL, SAFE, 0) == answered(PROMPT, SAFE)


def test_a_transition_row_asks_for_s_at_every_place_of_the_harmful_answer() -> None:
    row = transition(PROMPT, HARMFUL, S, 0.0, random.Random(0))
    assert row == Row(PROMPT + HARMFUL, (NO_TARGET,) * 3 + (S,) * 5)


@given(ids, ids, ids, st.floats(0, 1), st.integers(0, 10**6))
def test_layout_of_any_row(
    prompt: list[int], harmful: list[int], safe: list[int], dropout: float, seed: int
) -> None:
    rng = random.Random(seed)
    row = transition(prompt, harmful, 99, dropout, rng)
    assert row.tokens == (*prompt, *harmful)
    assert set(row.labels[: len(prompt)]) == {NO_TARGET}
    assert 99 in row.labels and set(row.labels) <= {99, NO_TARGET}
    k = prefix_length(seed, len(harmful), rng)
    row = prefixed(prompt, harmful, safe, k)
    assert row.tokens == (*prompt, *harmful[:k], *safe)
    assert [label for label in row.labels if label != NO_TARGET] == safe
    assert row.labels[-len(safe) :] == row.tokens[-len(safe) :]


def test_dropout_leaves_its_share_and_always_one() -> None:
    harmful = range(400)
    kept = [
        sum(label == S for label in transition(PROMPT, harmful, S, 0.95, random.Random(seed)).labels)
        for seed in range(50)
    ]
    assert sum(kept) / len(kept) == pytest.approx(20, abs=4 * (400 * 0.05 * 0.95 / 50) ** 0.5)
    once = [transition(PROMPT, range(9), S, 1.0, random.Random(seed)).labels for seed in range(300)]
    places = Counter(labels.index(S) for labels in once)
    assert all(labels.count(S) == 1 for labels in once) and set(places) == set(range(3, 12))


def test_every_third_prefix_is_empty_and_the_others_are_uniform() -> None:
    rng = random.Random(0)
    drawn = [prefix_length(number, 4, rng) for number in range(3000)]
    assert [number for number, k in enumerate(drawn) if k == 0] == list(range(0, 3000, 3))
    counts = Counter(k for k in drawn if k)
    assert set(counts) == {1, 2, 3, 4} and all(abs(count - 500) < 5 * 375**0.5 for count in counts.values())
    assert prefix_length(1, 0, rng) == 0


def test_both_terms_have_half_of_the_share_each() -> None:
    weights = mixture({"a": 0.25, "b": 0.75}, 0.4)
    assert weights == pytest.approx({"prefixed": 0.2, "transitions": 0.2, "a": 0.15, "b": 0.45})
    with pytest.raises(RecipeError, match="prefixed is what derta calls rows of its own"):
        mixture({"prefixed": 1.0}, 0.5)


def test_the_refusal_token_is_the_first_that_is_told_behind_the_template(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    refusals = ["Sorry, I cannot help with that.", " Sorry. No."]  # the template trims
    opener = refusal_token(tokenizer, refusals)
    for refusal in refusals:
        [(_, answer)] = tokenized([parted(tokenizer, "How?", refusal)], tokenizer)
        assert answer[0] == opener.token
    bare, spaced = opener.forms
    assert opener.token == bare != spaced
    assert [tokenizer.decode([form]).strip() for form in opener.forms] == [opener.text] * 2
    assert opener.text and refusals[0].startswith(opener.text)


def test_refusals_that_begin_differently_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    refusals = ["I cannot tell.", "I will not.", "No."]
    with pytest.raises(DataError, match=r"2 openers \('I' 2 times, 'No' 1 times; row 2 is the first"):
        refusal_token(tokenizer, refusals)
    assert refusal_token(tokenizer, refusals[:2]).text == "I"


@pytest.mark.parametrize(("before", "found"), [("thinks: ", "t"), (" ", "")])
def test_a_token_of_the_template_is_no_refusal_token(before: str, found: str) -> None:
    letters = train_tokenizer(["a"], 262)  # knows no words, so a space is a token of its own
    assert refusal_token(letters, ["Sorry."]).text == "S"
    letters.chat_template = "{{ 'ask' }}{%- if not add_generation_prompt %}{{ '" + before
    letters.chat_template += "' + messages[1]['content'] + '<|eot_id|>' }}{%- endif %}"
    with pytest.raises(ModelError, match=f"they begin with '{found}', and 'Sorry.' does not"):
        refusal_token(letters, ["Sorry."])


def test_refusals_that_are_not_there_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="none are given"):
        refusal_token(tokenizer, [])
    with pytest.raises(DataError, match="row 1 is blank"):
        refusal_token(tokenizer, ["Sorry.", " "])
    bare = train_tokenizer(["Sorry"], 262)
    bare.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        refusal_token(bare, ["Sorry."])


def test_bad_rows_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(DataError, match="prompt is empty"):
        prefixed((), HARMFUL, SAFE, 1)
    with pytest.raises(DataError, match="answer is empty"):
        prefixed(PROMPT, HARMFUL, (), 1)
    with pytest.raises(DataError, match=r"k: 6 is not in 0\.\.5"):
        prefixed(PROMPT, HARMFUL, SAFE, 6)
    with pytest.raises(DataError, match="harmful response is empty"):
        transition(PROMPT, (), S, 0.0, rng)
    with pytest.raises(DataError, match=r"dropout: 1\.1 is not in"):
        transition(PROMPT, HARMFUL, S, 1.1, rng)
