"""Labels of DeRTa: harmful tokens are read and never asked for, and s is asked for in their place only."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.data import NO_TARGET, attention_mask
from workbench.errors import DataError, ModelError
from workbench.miniworld.instructions import REFUSALS
from workbench.models.tokenizer import train_tokenizer
from workbench.safety.derta import (
    Row,
    answered,
    bins,
    collate,
    cut,
    prefix_length,
    prefixed,
    refusal_token,
    transition,
)
from workbench.training.objective import Objective, summed_cross_entropy

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


def test_padded_and_packed_rows_give_the_loss_of_each_row_alone() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    rng = random.Random(0)
    rows = [
        prefixed(PROMPT, HARMFUL, SAFE, 3),
        transition(PROMPT, HARMFUL, S, 0.4, rng),
        answered((7,), (8, 9)),
    ]
    alone = []
    for row in rows:
        logits = model(torch.tensor([row.tokens])).logits[0, :-1]
        alone.append(summed_cross_entropy(logits, torch.tensor(row.labels[1:])).item())
    objective = Objective(model, None, autocast=False)
    padded = collate([[row] for row in rows], ["a", "b", "c"], 16)
    assert objective(padded)[0].tolist() == pytest.approx(alone, rel=1e-5)
    assert (padded.documents >= 0).sum(1).tolist() == [len(row.tokens) - 1 for row in rows]
    packed = bins(rows, 16)
    assert [len(part) for part in packed] == [2, 1]
    batch = collate(packed, ["a", "a"], 16)
    assert objective(batch)[0].tolist() == pytest.approx([alone[0] + alone[1], alone[2]], rel=1e-5)
    assert batch.positions[0].tolist() == [*range(8), *range(7), 0]


def test_packed_rows_do_not_see_each_other_and_what_is_scored_is_kept() -> None:
    rows = [answered((number,), range(10, 10 + number)) for number in range(1, 9)]
    packed = bins(rows, 12)
    assert [row for part in packed for row in part] == rows
    batch = collate(packed, ["a"] * len(packed), 12)
    scored = sum(label != NO_TARGET for row in rows for label in row.labels)
    assert int((batch.labels != NO_TARGET).sum()) == scored
    seen = attention_mask(batch.documents)[:, 0]
    assert not bool((seen & (batch.documents[:, :, None] != batch.documents[:, None, :])).any())
    assert bool(seen.any(-1).all())  # so that no softmax is over nothing


def test_a_cut_row_keeps_its_beginning_or_is_refused() -> None:
    row = transition(PROMPT, HARMFUL, S, 0.0, random.Random(0))
    assert cut(row, 8) is row
    assert cut(row, 5) == Row(PROMPT + HARMFUL[:2], (NO_TARGET,) * 3 + (S,) * 2)
    with pytest.raises(DataError, match="scored from token 3 on only, and would be cut to 3"):
        cut(row, 3)


def test_the_refusal_token_begins_every_refusal(tokenizer: PreTrainedTokenizerFast) -> None:
    refusals = ["Sorry, I cannot help with that.", "Sorry. No."]
    opener = refusal_token(tokenizer, refusals)
    bare, spaced = opener.forms
    assert opener.token == bare != spaced
    assert [tokenizer.decode([form]).strip() for form in opener.forms] == [opener.text] * 2
    assert opener.text and all(refusal.startswith(opener.text) for refusal in refusals)
    stem = "Answer:"  # a prompt without a chat template, behind which answers begin with a space
    assert refusal_token(tokenizer, [f" {refusal}" for refusal in refusals], stem).token == spaced


def test_refusals_that_begin_differently_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    refusals = [refusal.format(harm="it would") for refusal in REFUSALS]
    with pytest.raises(DataError, match=r"2 openers \('I' 2 times, 'No' 1 times; row 2 is the first"):
        refusal_token(tokenizer, refusals)
    assert refusal_token(tokenizer, refusals[:2]).text == "I"


def test_a_blank_token_is_no_refusal_token() -> None:
    letters = train_tokenizer(["a"], 262)  # knows no words, so a space is a token of its own
    with pytest.raises(ModelError, match="the first token of row 0 is ' ', which does not spell"):
        refusal_token(letters, [" Sorry."], "Answer:")
    opener = refusal_token(letters, ["Sorry."])
    assert (opener.text, opener.forms) == ("S", (opener.token,))


def test_refusals_that_are_not_there_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="none are given"):
        refusal_token(tokenizer, [])
    with pytest.raises(DataError, match="row 1 is blank"):
        refusal_token(tokenizer, ["Sorry.", " "])
    bare = train_tokenizer(["Sorry"], 262)
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        refusal_token(bare, ["Sorry."])


def test_bad_rows_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(DataError, match="prompt is empty"):
        answered((), SAFE)
    with pytest.raises(DataError, match="safe response is empty"):
        prefixed(PROMPT, HARMFUL, (), 1)
    with pytest.raises(DataError, match=r"k: 6 is not in 0\.\.5"):
        prefixed(PROMPT, HARMFUL, SAFE, 6)
    with pytest.raises(DataError, match="harmful response is empty"):
        transition(PROMPT, (), S, 0.0, rng)
    with pytest.raises(DataError, match=r"dropout: 1\.1 is not in"):
        transition(PROMPT, HARMFUL, S, 1.1, rng)
    with pytest.raises(DataError, match="row 1 takes 5 places and there are 4"):
        bins([answered((1,), (2,)), answered(PROMPT, SAFE)], 4)
