from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from workbench.evaluation.measurement import Measurement, pool, read, value, write

numbers = st.floats(min_value=-1e6, max_value=1e6)
pairs = st.tuples(numbers, st.floats(min_value=1e-3, max_value=1e6))


@given(st.dictionaries(st.text(max_size=8), pairs, min_size=1, max_size=5), st.sampled_from([None, 0.25]))
def test_json_round_trip_is_the_identity(items: dict[str, tuple[float, float]], chance: float | None) -> None:
    written = Measurement("new", "facts", "acc", items, "mean", True, "p", chance)
    assert Measurement.from_json(json.loads(json.dumps(written.to_json()))) == written


@given(st.lists(st.booleans(), min_size=1))
def test_the_mean_of_right_and_wrong_is_the_share_of_right(right: list[bool]) -> None:
    assert value([(float(r), 1.0) for r in right], "mean") == pytest.approx(sum(right) / len(right))


@given(st.integers(2, 10**6), st.lists(st.integers(1, 4096), min_size=1, max_size=50))
def test_a_uniform_guess_over_v_tokens_has_perplexity_v(vocabulary: int, lengths: list[int]) -> None:
    items = [(length * math.log(vocabulary), float(length)) for length in lengths]
    assert value(items, "perplexity") == pytest.approx(vocabulary, rel=1e-9)


def test_a_uniform_guess_over_bytes_has_eight_bits_per_byte() -> None:
    assert value([(n * math.log(256), float(n)) for n in (3, 7, 90)], "bits_per_byte") == pytest.approx(8)


def test_a_perplexity_beyond_floats_is_infinite() -> None:
    assert value([(1e6, 1.0)], "perplexity") == math.inf


def test_long_windows_weigh_more() -> None:
    assert value([(0.0, 3.0), (4.0, 1.0)], "mean") == 1.0


def test_a_row_is_read_back_from_its_files_and_nothing_else(tmp_path: Path) -> None:
    facts = Measurement("new", "facts", "acc", {"a": (1.0, 1.0)}, "mean", True, "p", 0.25)
    base = Measurement("language", "base", "perplexity", {"0": (2.5, 3.0)}, "perplexity", False, "q")
    write(tmp_path / "new.facts.json", [facts], [{"id": "a"}])
    write(tmp_path / "language.base.json", [base])
    (tmp_path / "speed.json").write_text("{}")
    assert sorted(read(tmp_path), key=lambda m: m.key) == [base, facts]
    assert facts.key == "new.facts.acc"
    assert base.value == pytest.approx(math.exp(2.5 / 3))


FACTS = Measurement("new", "facts", "acc", {"a": (1.0, 1.0), "b": (0.0, 1.0)}, "mean", True, "p", 0.25)


def test_a_pool_holds_the_items_of_all_seeds_under_names_of_their_own() -> None:
    other = replace(FACTS, items={"a": (1.0, 1.0), "c": (1.0, 1.0)})
    (pooled,) = pool({7: [FACTS], 8: [other]})
    assert set(pooled.items) == {"7/a", "7/b", "8/a", "8/c"}
    assert pooled.value == (FACTS.value + other.value) / 2
    assert replace(pooled, items={}) == replace(FACTS, items={})


def test_one_seed_alone_stays_as_it_is() -> None:
    assert pool({7: [FACTS]}) == [FACTS]
    assert pool({}) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([replace(FACTS, aggregation="perplexity")], "measure it differently"),
        ([replace(FACTS, higher_is_better=False)], "measure it differently"),
        ([replace(FACTS, task="people")], "do not measure the same: only one has new.facts.acc, new.p"),
        ([], "do not measure the same: only one has new.facts.acc"),
    ],
)
def test_what_was_measured_in_different_ways_is_not_pooled(other: list[Measurement], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool({7: [FACTS], 8: other})


def test_a_pool_keeps_the_clusters_of_the_seeds_apart() -> None:
    styled = replace(FACTS, clusters={"a": "question", "b": "question"})
    (pooled,) = pool({7: [styled], 8: [styled]})
    assert pooled.clusters == {
        "7/a": "7/question",
        "7/b": "7/question",
        "8/a": "8/question",
        "8/b": "8/question",
    }
    with pytest.raises(ValueError, match="measure it differently"):
        pool({7: [styled], 8: [FACTS]})


def test_a_topic_of_which_one_seed_drew_no_question_is_pooled_over_the_others() -> None:
    topic = replace(FACTS, task="by_topic", metric="storms", clusters={"a": "q", "b": "q"})
    pooled = {found.key: found for found in pool({7: [FACTS], 8: [FACTS, topic], 9: [FACTS, topic]})}
    assert set(pooled[topic.key].items) == {"8/a", "8/b", "9/a", "9/b"}
    assert len(pooled[FACTS.key].items) == 6


def test_clusters_are_read_back_and_items_that_say_nothing_leave_the_value(tmp_path: Path) -> None:
    items = {"a": (1.0, 1.0), "b": (0.0, 0.0), "c": (0.0, 1.0)}
    styled = replace(FACTS, items=items, clusters={"a": "x", "b": "x", "c": "y"})
    write(tmp_path / "new.facts.json", [styled])
    assert read(tmp_path) == [styled]
    assert styled.value == 0.5
    assert math.isnan(replace(styled, items={"b": (0.0, 0.0)}).value)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1.0, 0.0, 1.0])), min_size=1, max_size=40))
def test_average_precision_is_scikit_learns(drawn: list[tuple[int, float]]) -> None:
    """With ties; items without a label say nothing, and without a positive there is no curve."""
    items = [(score / 5, label) for score, label in drawn]
    told = [(score, label > 0) for score, label in items if label]
    found = value(items, "average_precision")
    if any(label for _, label in told):
        scores, labels = zip(*told, strict=True)
        assert found == pytest.approx(average_precision_score(labels, scores))
    else:
        assert math.isnan(found)
