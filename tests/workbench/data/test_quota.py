"""Counts per source add up, never fall, and never leave the exact share by much."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workbench.data.quota import Quota

weight = st.floats(0, 1, allow_nan=False, allow_subnormal=False)


def _weights(sources: st.SearchStrategy[int]) -> st.SearchStrategy[list[float]]:
    return sources.flatmap(lambda n: st.lists(weight, min_size=n, max_size=n)).filter(lambda w: sum(w) > 0)


def _worst_drift(weights: list[float], moments: list[int]) -> Fraction:
    """Largest distance of a count from its exact share, after the first 40 samples and at `moments`."""
    quota = Quota(weights)
    exact = [Fraction(weight) for weight in weights]
    total = sum(exact)
    return (
        max(
            abs(count * total - weight * n)
            for n in [*range(40), *moments]
            for weight, count in zip(exact, quota.counts(n), strict=True)
        )
        / total
    )


@given(_weights(st.integers(1, 4)), st.lists(st.integers(0, 10**9), max_size=20))
@settings(max_examples=100, deadline=None)
def test_up_to_four_sources_never_drift_by_one_sample(weights: list[float], moments: list[int]) -> None:
    assert _worst_drift(weights, moments) < 1


@given(_weights(st.integers(5, 16)), st.lists(st.integers(0, 10**9), max_size=20))
@settings(max_examples=60, deadline=None)
def test_drift_of_many_sources_is_bounded_by_half_the_depth(weights: list[float], moments: list[int]) -> None:
    assert _worst_drift(weights, moments) < (len(weights) - 1).bit_length() / 2


@given(st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_counts_add_up_and_never_fall_under_any_changes_of_weights(sources: int, data: st.DataObject) -> None:
    draw = lambda: data.draw(_weights(st.just(sources)))  # noqa: E731
    quota = Quota(draw())
    before, n = [0] * sources, 0
    for _ in range(data.draw(st.integers(1, 6))):
        for _ in range(data.draw(st.integers(0, 8))):
            n += data.draw(st.integers(1, 40))
            counts = quota.counts(n)
            assert sum(counts) == n
            assert all(now >= then for now, then in zip(counts, before, strict=True))
            before = counts
        quota.reweigh(n, draw())


@given(_weights(st.just(4)), _weights(st.just(4)), st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_a_change_leaves_the_past_as_it_was(
    first: list[float], then: list[float], start: int, n: int
) -> None:
    constant, changed = Quota(first), Quota(first)
    changed.reweigh(start, then)
    assume(n <= start)
    assert changed.counts(n) == constant.counts(n)


@given(_weights(st.integers(1, 6)), st.lists(st.integers(1, 30), max_size=30))
@settings(max_examples=100, deadline=None)
def test_saying_the_same_weights_again_changes_nothing(weights: list[float], pauses: list[int]) -> None:
    constant, repeated = Quota(weights), Quota(weights)
    n = 0
    for pause in pauses:
        n += pause
        repeated.reweigh(n, weights)
    assert repeated.counts(n + 500) == constant.counts(n + 500)


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_a_share_far_below_one_sample_per_batch_gets_its_due_when_weights_change_at_every_batch(
    batch_size: int,
) -> None:
    """Weights that move a little at every step must not round a rare source away."""
    quota = Quota([0.93, 0.07])
    due = Fraction(0)
    for step in range(1000):
        rare = 0.01 + 0.02 * step / 1000
        quota.reweigh(step * batch_size, [1 - rare, rare])
        due += Fraction(rare) / (Fraction(1 - rare) + Fraction(rare)) * batch_size
        assert abs(quota.counts((step + 1) * batch_size)[1] - due) < 1


def test_a_source_of_weight_zero_gives_nothing() -> None:
    assert Quota([0.0, 0.5, 0.0, 0.5, 0.0]).counts(1001)[::2] == [0, 0, 0]
