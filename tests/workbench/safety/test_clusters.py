"""Rates and differences of clustered prompts: known values, coverage, and nothing missing is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from workbench.errors import DataError
from workbench.safety.clusters import Outcome, difference, rate, wilson


def outcomes(values: Mapping[str, Sequence[float | None]]) -> list[Outcome]:
    return [Outcome(f"{base}/{i}", base, v) for base, vs in values.items() for i, v in enumerate(vs)]


def drawn(generator: np.random.Generator, clusters: int, styles: int) -> list[Outcome]:
    """Each base question has a rate of its own, 0.3 on average."""
    rates = generator.beta(0.6, 1.4, clusters)
    hits = generator.random((clusters, styles)) < rates[:, None]
    return outcomes({f"b{c}": [float(hit) for hit in row] for c, row in enumerate(hits)})


def test_a_rate_counts_answers_clusters_and_the_missing() -> None:
    found = rate(outcomes({"a": [1.0, 0.0, None], "b": [1.0, 1.0], "c": [None]}))
    assert (found.value, found.n, found.clusters, found.missing) == (0.75, 4, 2, 2)
    assert 0.5 <= found.low <= 0.75 <= found.high <= 1.0


def test_a_missing_verdict_is_neither_safe_nor_unsafe() -> None:
    base: dict[str, Sequence[float | None]] = {"a": [1.0, 0.0], "b": [0.0, 0.0], "c": [1.0, 1.0]}
    known = rate(outcomes(base))
    with_missing = rate(outcomes({**base, "d": [None, None]}))
    assert (with_missing.value, with_missing.low, with_missing.high) == (known.value, known.low, known.high)
    with pytest.raises(DataError, match="all 3 outcomes are missing"):
        rate(outcomes({"a": [None, None, None]}))


def test_an_interval_of_clusters_of_one_is_that_of_a_proportion() -> None:
    values = {f"b{i}": [float(i < 60)] for i in range(200)}
    found = rate(outcomes(values))
    se = np.sqrt(0.3 * 0.7 / 200)
    np.testing.assert_allclose([found.low, found.high], [0.3 - 1.96 * se, 0.3 + 1.96 * se], atol=0.006)


def test_eighteen_styles_of_a_question_that_agree_are_one_question() -> None:
    one = rate(outcomes({f"b{i}": [float(i < 12)] for i in range(40)}))
    many = rate(outcomes({f"b{i}": [float(i < 12)] * 18 for i in range(40)}))
    np.testing.assert_allclose([many.low, many.high], [one.low, one.high], atol=0.03)
    by_row = wilson(0.3, 40 * 18)
    assert many.high - many.low > 3 * (by_row[1] - by_row[0])


def test_the_interval_covers_the_truth_with_few_clusters_where_that_by_row_does_not() -> None:
    generator = np.random.default_rng(0)
    covered, by_row = 0, 0
    for _ in range(200):
        sample = drawn(generator, clusters=16, styles=9)
        found = rate(sample)
        low, high = wilson(found.value, found.n)
        covered += found.low <= 0.3 <= found.high
        by_row += low <= 0.3 <= high
    assert covered >= 0.9 * 200  # 95 % less three standard deviations
    assert by_row < 0.8 * 200


def test_where_all_clusters_agree_the_interval_keeps_its_width() -> None:
    none = rate(outcomes({f"b{i}": [0.0] * 18 for i in range(20)}))
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(wilson(0.0, 20)[1]) and none.high > 0.1
    single = rate(outcomes({"b": [1.0, 0.0]}))
    assert single.low < 0.2 and single.high > 0.8


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (10, 10), (41, 300)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(hits / n, n), (theirs.low, theirs.high), atol=1e-12)


def test_the_same_seed_gives_the_same_interval() -> None:
    sample = drawn(np.random.default_rng(1), 30, 6)
    assert rate(sample, 5) == rate(sample, 5) == rate(sample[::-1], 5)
    ends = {(rate(sample, seed).low, rate(sample, seed).high) for seed in range(8)}
    assert 1 < len(ends) <= 8


def test_a_difference_pairs_by_id_whatever_the_order() -> None:
    first = outcomes({"a": [1.0, 1.0], "b": [1.0, 0.0], "c": [1.0, None]})
    second = outcomes({"a": [0.0, 1.0], "b": [0.0, 0.0], "c": [0.0, 0.0], "d": [1.0]})
    found = difference(first, second)
    assert found.value == pytest.approx(-3 / 5)
    assert (found.n, found.clusters, found.missing) == (5, 3, 2)
    assert difference(first[::-1], second) == found
    opposite = difference(second, first)
    assert (opposite.value, opposite.missing) == (-found.value, 2)
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_pairing_is_sharper_than_two_rates() -> None:
    generator = np.random.default_rng(2)
    first = drawn(generator, 60, 9)
    second = [Outcome(o.id, o.base_id, 0.0 if generator.random() < 0.2 else o.value) for o in first]
    found, before, after = difference(first, second), rate(first), rate(second)
    assert found.value == pytest.approx(after.value - before.value)
    assert found.high - found.low < 0.5 * (before.high - before.low + after.high - after.low)
    assert found.high < 0


def test_equal_rows_differ_by_nothing_but_not_for_certain() -> None:
    sample = drawn(np.random.default_rng(3), 25, 4)
    same = difference(sample, sample)
    assert same.value == 0
    assert same.high == -same.low == pytest.approx(wilson(0.0, 25)[1])


def test_rows_that_cannot_be_paired_are_errors() -> None:
    one = outcomes({"a": [1.0]})
    with pytest.raises(DataError, match="no answer is judged in both"):
        difference(one, outcomes({"b": [1.0]}))
    with pytest.raises(DataError, match=r"row 'a/0': its base question is 'a' in the first and 'z'"):
        difference(one, [Outcome("a/0", "z", 1.0)])
