"""The Pareto set, and what is told of each row."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.sheet.frontier import frontier, frontiers, is_race, score
from workbench.sheet.sheet import Metric, Row, Sheet
from workbench.sheet.statistics import Interval

KEYS = ("retained.a.acc", "new.b.acc")


def row(variant, x, y, parent="base", method="replay", higher=True, bits=None):
    metrics = {key: Metric(value, 0.0, None, 9, higher, "p") for key, value in zip(KEYS, (x, y), strict=True)}
    parent = None if variant == "base" else parent
    return Row(variant, parent, "cpt", method, {}, bits, bits, 1, metrics, 1.0, 1, None, "sound", [])


def plane(*rows):
    return frontier(Sheet("r", list(rows), []), *KEYS)


RACE = (
    row("base", 0.8, 0.2),
    row("full", 0.4, 1.0, method="full"),
    row("good", 0.76, 0.9),
    row("poor", 0.7, 0.9),
    row("rest", 0.3, 0.3, parent="full", method="merge"),
)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9))
def test_the_frontier_is_the_pareto_set(places):
    points = plane(*(row(f"v{i}", x / 4, y / 4) for i, (x, y) in enumerate(places))).rows
    for point in points:
        beaten = [
            other.variant
            for other in points
            if other.retained.mean >= point.retained.mean
            and other.new.mean >= point.new.mean
            and (other.retained.mean > point.retained.mean or other.new.mean > point.new.mean)
        ]
        assert point.on_frontier == (not beaten)
        assert (point.dominated_by in beaten) if beaten else (point.dominated_by is None)
    best = {point.variant for point in points if point.on_frontier}
    assert best
    assert {point.dominated_by for point in points} <= best | {None}


def test_shares_kept_and_gained_are_against_what_training_began_from():
    points = {point.variant: point for point in plane(*RACE).rows}
    assert points["good"].kept == pytest.approx(0.95)
    assert points["good"].of_full_gain == pytest.approx(0.7 / 0.8)
    assert points["full"].of_full_gain == pytest.approx(1)
    assert points["rest"].kept == pytest.approx(0.3 / 0.8)  # against base, not against full
    assert points["rest"].of_full_gain == pytest.approx(0.1 / 0.8)
    assert (points["base"].kept, points["base"].of_full_gain) == (None, None)
    assert points["poor"].dominated_by == "good"


def test_less_is_better_where_the_metric_says_so():
    ppl = [row("base", 3.0, 60.0), row("full", 12.0, 4.0, method="full"), row("good", 4.0, 5.0)]
    worse = row("poor", 5.0, 6.0)
    found = plane(
        *(
            replace(one, metrics={k: replace(m, higher_is_better=False) for k, m in one.metrics.items()})
            for one in (*ppl, worse)
        )
    )
    points = {point.variant: point for point in found.rows}
    assert [point.variant for point in found.rows if point.on_frontier] == ["base", "full", "good"]
    assert points["good"].kept == pytest.approx(0.75)
    assert points["good"].of_full_gain == pytest.approx(55 / 56)


def test_where_full_gained_nothing_or_is_absent_no_share_is_told():
    lazy = plane(RACE[0], row("full", 0.4, 0.2, method="full"), RACE[2])
    assert {point.of_full_gain for point in lazy.rows} == {None}
    assert {point.of_full_gain for point in plane(RACE[0], RACE[2]).rows} == {None}


def test_quantized_rows_and_rows_without_a_score_are_not_placed():
    bare = replace(RACE[2], variant="bare", metrics={})
    burst = replace(
        RACE[2], variant="burst", metrics={k: replace(m, value=None) for k, m in RACE[2].metrics.items()}
    )
    found = plane(RACE[0], row("w4", 0.8, 0.8, bits=4), bare, burst)
    assert [point.variant for point in found.rows] == ["base"]
    assert found.point("w4") is None


def test_seeds_give_the_mean_and_its_interval():
    metric = Metric(0.6, 0.1, Interval(0.5, 0.7), 9, True, "p", seeds=[0.4, 0.8], seeds_ci=Interval(0.1, 1.1))
    assert score(metric).mean == pytest.approx(0.6)
    assert score(metric).ci == Interval(0.1, 1.1)
    assert score(replace(metric, seeds=[], seeds_ci=None)).ci == Interval(0.5, 0.7)
    assert score(replace(metric, seeds=[0.4, None], seeds_ci=None)) is None


def test_the_record_is_json_with_the_agreed_fields(race):
    (found,) = frontiers(race)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(record) == {"schema", "retained", "new", "rows"}
    fields = {
        *("variant", "method", "retained", "new", "kept", "of_full_gain", "trainable_parameters"),
        *("seconds", "peak_memory_bytes", "on_frontier", "dominated_by"),
    }
    assert all(set(one) == fields for one in record["rows"])
    assert all(len(one["new"]["seeds"]) == 3 and len(one["new"]["ci"]) == 2 for one in record["rows"])


def test_two_continual_trainings_of_one_parent_make_a_race(race, example):
    assert is_race(race)
    assert is_race(example)
    assert not is_race(replace(race, rows=race.rows[:2]))
