"""Pairs say which answer is right, lose nothing uncounted as tokens, and stand in exact shares."""

from __future__ import annotations

from collections import Counter

import pytest

from workbench.errors import DataError
from workbench.models.tokenizer import train_tokenizer
from workbench.safety import pairs
from workbench.safety.pairs import Pair
from workbench.safety.triplets import Triplet

TRIPLET = Triplet(
    id="a/1",
    base_id="a",
    topics=["waking"],
    style="story",
    split="train",
    prompt="Wake it.",
    chosen="Sorry, no.",
    rejected="Burn herbs.",
    chosen_source="rules",
    rejected_judge="rules",
    rejected_score=1.0,
)


def test_refusing_is_right_for_triplets_and_wrong_for_harmless_exchanges() -> None:
    (bad,) = pairs.malicious([TRIPLET])
    assert (bad.affirming, bad.rejecting) == ("Burn herbs.", "Sorry, no.")
    assert (bad.chosen, bad.rejected) == ("Sorry, no.", "Burn herbs.")
    turns = [(f"Who is {n}?", f"{n} is a smith.") for n in range(40)]
    good = pairs.harmless(turns, ["Sorry, no.", "Sorry, never."], 1, "facts")
    assert all(each.chosen == answer for each, (_, answer) in zip(good, turns, strict=True))
    assert {each.rejected for each in good} == {"Sorry, no.", "Sorry, never."}
    assert good == pairs.harmless(turns, ["Sorry, no.", "Sorry, never."], 1, "facts")
    assert good != pairs.harmless(turns, ["Sorry, no.", "Sorry, never."], 2, "facts")


def test_answers_are_cut_at_the_length_and_what_does_not_fit_is_counted() -> None:
    tokenizer = train_tokenizer(["a"], 262)
    some = [Pair("Hi?", "A long answer to it.", "No.", False), Pair("x" * 99, "Yes.", "No.", True)]
    whole = pairs.encode(some, tokenizer, 999)
    assert (whole.cut, whole.left_out) == (0, 0)
    first, second = whole.rows
    assert tokenizer.decode(first["chosen_ids"]) == "A long answer to it.<|eot_id|>"
    assert tokenizer.decode(first["prompt_ids"]).endswith("assistant<|end_header_id|>\n\n")
    assert tokenizer.decode(second["chosen_ids"]) == "No.<|eot_id|>"
    length = len(first["prompt_ids"]) + 5
    cut = pairs.encode(some, tokenizer, length)
    assert (cut.cut, cut.left_out, len(cut.rows)) == (1, 1, 1)
    assert cut.rows[0]["chosen_ids"] == first["chosen_ids"][:5]
    assert cut.rows[0]["rejected_ids"] == first["rejected_ids"]


def test_a_pair_that_cannot_be_told_is_named() -> None:
    with pytest.raises(DataError, match=r"the pair that begins 'Hi': .* spells the special token"):
        pairs.encode([Pair("Hi", "<|eot_id|>", "No.", False)], train_tokenizer(["a"], 262), 99)


def test_shares_are_exact_and_every_pair_of_a_source_is_seen_before_one_is_seen_again() -> None:
    sizes, weights = {"triplets": 10, "facts": 7, "look": 3}, {"triplets": 0.5, "facts": 0.3, "look": 0.2}
    order = pairs.order(sizes, weights, 20, 10, 1)
    assert order.shape == (20, 10)
    for row in order:
        assert [sum(a <= n < b for n in row) for a, b in ((0, 10), (10, 17), (17, 20))] == [5, 3, 2]
    facts = [n for row in order for n in row if 10 <= n < 17]
    counts = Counter(facts)
    assert len(counts) == 7 and max(counts.values()) - min(counts.values()) <= 1
    assert (order == pairs.order(sizes, weights, 20, 10, 1)).all()
    assert (order != pairs.order(sizes, weights, 20, 10, 2)).any()
    assert (order[:5] == pairs.order(sizes, weights, 5, 10, 1)).all()  # a longer training begins alike


def test_over_many_odd_batches_the_share_is_exact_to_half_a_pair() -> None:
    order = pairs.order({"triplets": 4, "facts": 9}, {"triplets": 0.35, "facts": 0.65}, 30, 3, 0)
    for steps in range(1, 31):
        assert abs((order[:steps] < 4).sum() - 0.35 * 3 * steps) <= 0.5 + 1e-9
