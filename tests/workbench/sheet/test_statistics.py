"""Known answers from print or by hand, and coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from workbench.sheet import statistics

Z = 1.959963984540054
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)
counts = st.integers(0, 60)


def test_wilson_of_no_success_is_its_closed_form():
    interval = statistics.wilson(0, 10)
    assert interval.low == pytest.approx(0, abs=1e-12)
    assert interval.high == pytest.approx(Z**2 / (10 + Z**2))


def test_wilson_is_the_score_equation_solved():
    interval = statistics.wilson(37, 90)
    for end in (interval.low, interval.high):
        assert abs(37 / 90 - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / 90))


@pytest.mark.parametrize(("n", "p"), [(40, 0.05), (40, 0.5), (200, 0.95)])
def test_wilson_covers_the_truth(n, p):
    drawn = np.random.default_rng(0).binomial(n, p, size=2000)
    intervals = {k: statistics.wilson(int(k), n) for k in set(drawn)}
    covered = np.mean([intervals[k].low <= p <= intervals[k].high for k in drawn])
    assert 0.925 <= covered <= 0.985


def test_newcombe_and_mcnemar_give_the_published_answers():
    """Airway hyper-responsiveness before and after transplantation: Fagerland, Lydersen and Laake (2014)."""
    interval = statistics.newcombe(1, 1, 7, 12)
    assert (interval.low, interval.high) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert statistics.mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)


def test_mcnemar_of_no_discordant_item_is_one():
    assert statistics.mcnemar(0, 0) == 1


@given(counts, counts, counts, counts)
def test_newcombe_holds_the_difference_and_turns_with_the_sign(both, first, second, neither):
    n = both + first + second + neither
    if n == 0:
        return
    interval = statistics.newcombe(both, first, second, neither)
    mirrored = statistics.newcombe(both, second, first, neither)
    assert -1 - 1e-12 <= interval.low <= (first - second) / n + 1e-12
    assert (first - second) / n - 1e-12 <= interval.high <= 1 + 1e-12
    assert (interval.low, interval.high) == pytest.approx((-mirrored.high, -mirrored.low))


def test_newcombe_covers_the_truth_of_correlated_pairs():
    shares = np.array([0.6, 0.12, 0.05, 0.23])
    tables = np.random.default_rng(1).multinomial(150, shares, size=500)
    intervals = [statistics.newcombe(*map(int, table)) for table in tables]
    covered = np.mean([interval.low <= shares[1] - shares[2] <= interval.high for interval in intervals])
    assert 0.915 <= covered <= 0.985


def test_bootstrap_covers_the_truth_of_a_ratio():
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(100):
        denominator = generator.uniform(50, 150, size=60)
        numerator = denominator * generator.normal(1.5, 0.3, size=60)
        sums = statistics.resampled_sums(np.column_stack([numerator, denominator]), (trial,))
        interval = statistics.percentile_interval(statistics.aggregate(sums[:, 0], sums[:, 1], "perplexity"))
        covered += interval.low <= math.exp(1.5) <= interval.high
    assert 0.88 <= covered / 100 <= 0.99


def test_bootstrap_of_a_mean_has_the_textbook_standard_error():
    values = np.random.default_rng(3).normal(size=400)
    sums = statistics.resampled_sums(values[:, None], (0,))
    assert np.std(sums[:, 0] / 400) == pytest.approx(np.std(values) / math.sqrt(400), rel=0.05)


def test_columns_share_their_draws_and_seeds_repeat():
    values = np.random.default_rng(4).normal(size=(30, 1))
    sums = statistics.resampled_sums(np.hstack([values, 2 * values, np.ones((30, 1))]), (7, 1))
    assert np.allclose(sums[:, 1], 2 * sums[:, 0])
    assert np.all(sums[:, 2] == 30)
    assert np.allclose(sums[:, :1], statistics.resampled_sums(values, (7, 1)))
    assert not np.allclose(sums[:, :1], statistics.resampled_sums(values, (7, 2)))


def test_resampling_in_chunks_is_complete(monkeypatch):
    monkeypatch.setattr(statistics, "_CELLS_AT_ONCE", 999)
    assert np.all(statistics.resampled_sums(np.ones((100, 1)), (0,)) == 100)


def test_bootstrap_p_is_one_without_a_difference_and_small_with_one():
    assert statistics.bootstrap_p(np.zeros(10_000)) == 1
    assert statistics.bootstrap_p(np.ones(10_000)) == pytest.approx(2 / 10_001)


def test_intervals_survive_infinite_perplexities():
    interval = statistics.percentile_interval(np.array([1.0] * 90 + [math.inf] * 10))
    assert (interval.low, interval.high) == (1, math.inf)


def test_aggregates_are_what_their_names_say():
    num, den = np.array(6.0), np.array(4.0)
    assert statistics.aggregate(num, den, "mean") == 1.5
    assert statistics.aggregate(num, den, "perplexity") == pytest.approx(math.exp(1.5))
    assert statistics.aggregate(num, den, "bits_per_byte") == pytest.approx(1.5 / math.log(2))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values):
    adjusted = statistics.holm(values)
    assert all(p <= q <= min(1, len(values) * p) + 1e-12 for p, q in zip(values, adjusted, strict=True))
    ranked = [q for _, q in sorted(zip(values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


def test_students_interval_of_three_seeds():
    # t at 97.5 % with 2 degrees of freedom is 4.3027; s of 1, 2, 3 is 1.
    interval = statistics.student([1.0, 2.0, 3.0])
    assert interval.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4)
    assert interval.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert statistics.student([0.5, 0.5]) == statistics.Interval(0.5, 0.5)


@pytest.mark.parametrize("clustered", [True, False])
def test_resampled_average_precision_is_scikit_learns_of_the_same_draws(clustered, monkeypatch):
    """Counted out from the sums of indicators, which share their draws."""
    monkeypatch.setattr(statistics, "RESAMPLES", 30)
    monkeypatch.setattr(statistics, "_CELLS_AT_ONCE", 100)
    generator = np.random.default_rng(1)
    n = 24
    scores, labels = generator.integers(0, 7, n) / 7, generator.choice([-1.0, 0.0, 1.0], n)
    owners = generator.permutation(np.arange(n) % 8) if clustered else None
    found = statistics.resampled_precisions(scores, labels, owners, (0, 5))
    counts = statistics.resampled_sums(np.eye(8 if clustered else n), (0, 5))  # [R, C]
    for value, drawn in zip(found, counts[:, np.arange(n) if owners is None else owners], strict=True):
        told = (labels != 0) & (drawn > 0)
        if not (drawn[labels > 0] > 0).any():
            assert math.isnan(value)
            continue
        expected = average_precision_score(labels[told] > 0, scores[told], sample_weight=drawn[told])
        assert value == pytest.approx(expected)
