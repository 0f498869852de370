"""Items that are forms of one question: what is drawn again are the questions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from workbench.evaluation.measurement import Measurement
from workbench.sheet import compare, samples, statistics


def forms(values, clusters=True):
    """A rate of values by question; None says nothing."""
    items, owners = {}, {}
    for question, answers in values.items():
        for style, value in enumerate(answers):
            items[f"{question}/{style}"] = (0.0, 0.0) if value is None else (float(value), 1.0)
            owners[f"{question}/{style}"] = question
    named = owners if clusters else None
    return Measurement("safety", "attacks", "rate", items, "mean", False, "p", clusters=named)


def drawn(generator, questions, styles, rate=0.3, own=0.05):
    """Answers of one question mostly agree."""
    found = {}
    for number in range(questions):
        is_unsafe = generator.random() < rate
        flips = generator.random(styles) < own
        found[f"q{number:03d}"] = list((flips ^ is_unsafe).astype(float))
    return found


def sampled(measurement, seed=0):
    return samples.resample({"row": samples.read(measurement)}, seed)["row"]


def difference(first, second):
    read = samples.resample({"mine": samples.read(second), "theirs": samples.read(first)}, 0)
    (found,) = compare.conclude([compare.Pair("mine", read["mine"], "theirs", read["theirs"], "share")])
    return found


def test_forms_of_few_questions_are_covered_where_items_on_their_own_are_not():
    generator = np.random.default_rng(0)
    covered = alone = 0
    truth = 0.3 * 0.95 + 0.7 * 0.05
    for trial in range(100):
        values = drawn(generator, questions=16, styles=9)
        found = sampled(forms(values), trial).interval
        naive = sampled(forms(values, clusters=False)).interval
        covered += found.low <= truth <= found.high
        alone += naive.low <= truth <= naive.high
    assert covered >= 88  # 95 % less three standard deviations
    assert alone < 80


def test_clusters_of_one_item_agree_with_items_on_their_own():
    values = {f"q{n}": [float(n % 4 == 0)] for n in range(120)}
    clustered, alone = sampled(forms(values)).interval, sampled(forms(values, clusters=False)).interval
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high), abs=0.012)


def test_where_all_questions_agree_the_interval_keeps_its_width():
    none = sampled(forms({f"q{n}": [0.0] * 18 for n in range(20)}))
    assert none.interval == statistics.wilson(0, 20) and none.interval.high > 0.1
    assert (none.n, none.clusters) == (360, 20)
    assert sampled(forms({"q": [1.0, 0.0]})).interval is None


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (10, 10), (41, 300)])
def test_wilson_is_scipys(hits, n):
    theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = statistics.wilson(hits, n)
    np.testing.assert_allclose((found.low, found.high), (theirs.low, theirs.high), atol=1e-12)


def test_missing_items_leave_the_count_and_the_score():
    found = sampled(forms({"a": [1.0, None], "b": [0.0, 0.0], "c": [None, None]}))
    assert (found.n, found.clusters, found.value) == (3, 3, pytest.approx(1 / 3))
    assert found.interval.low <= found.value <= found.interval.high


def test_pairing_is_sharper_than_two_rates():
    generator = np.random.default_rng(2)
    first = drawn(generator, 60, 9)
    second = {q: [0.0 if generator.random() < 0.3 else v for v in values] for q, values in first.items()}
    found = difference(forms(first), forms(second))
    before, after = sampled(forms(first)).interval, sampled(forms(second)).interval
    assert found.ci.high - found.ci.low < 0.6 * (before.high - before.low + after.high - after.low)
    assert found.verdict == "better" and found.difference < 0
    assert "n = 540 in 60 clusters" in found.sentence


def test_equal_rows_differ_by_nothing_but_not_for_certain():
    values = forms(drawn(np.random.default_rng(3), 25, 4))
    same = difference(values, values)
    assert (same.difference, same.p, same.verdict) == (0, 1, "no evidence")
    assert same.ci.high == -same.ci.low == pytest.approx(statistics.wilson(0, 25).high)


@pytest.mark.parametrize("shift", np.linspace(0.0, 0.9, 10))
def test_p_is_below_five_percent_just_where_the_interval_leaves_zero(shift):
    draws = np.random.default_rng(4).normal(shift, 0.3, size=10_000)
    for clusters in (4, 12, 100):
        interval = statistics.percentile_interval(draws, clusters)
        p = statistics.bootstrap_p(draws, clusters)
        assert (p < 0.05) == (interval.low > 0) or p == pytest.approx(0.05, abs=0.002)
        assert p >= statistics.bootstrap_p(draws)


def test_other_forms_are_not_compared():
    values = {"a": [1.0, 0.0], "b": [0.0, 0.0]}
    mine, theirs = samples.read(forms(values)), samples.read(forms(values, clusters=False))
    assert compare.obstacle(mine, theirs) == "the items are forms of other questions"


def test_a_resample_without_any_telling_item_is_left_out():
    values = {f"q{n}": [1.0 if n < 2 else None] for n in range(6)}
    found = sampled(forms(values))
    assert np.isnan(found.draws).any() and (found.value, found.n) == (1, 2)
    assert math.isfinite(found.stderr) and found.interval == statistics.wilson(6, 6)


def curve(labels, scores):
    items = {
        f"i{i}": (score, 1.0 if label else -1.0)
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    }
    named = {name: name for name in items}
    return Measurement("safety", "guard", "auprc", items, "average_precision", True, "p", clusters=named)


def test_average_precision_has_an_interval_and_is_compared_in_pairs():
    generator = np.random.default_rng(0)
    labels = generator.random(150) < 0.4
    good, poor = 0.6 * labels + generator.random(150), generator.random(150)
    found = sampled(curve(labels, good))
    assert found.interval.low < found.value < found.interval.high
    assert found.stderr == pytest.approx((found.interval.high - found.interval.low) / 3.92, rel=0.15)
    assert difference(curve(labels, poor), curve(labels, good)).verdict == "better"
    same = difference(curve(labels, good), curve(labels, good))
    assert (same.difference, same.p) == (0, 1) and same.ci.low < 0 < same.ci.high


def test_a_curve_without_a_fault_still_has_an_interval():
    found = sampled(curve([True] * 5 + [False] * 5, [0.9] * 5 + [0.1] * 5))
    assert found.value == 1 and found.interval.low < 0.8 and found.interval.high == 1
