"""Counts of every batch are those of its weights, rounded; they add up, and nobody is forgotten."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.quota import ONE, STRIDE, Quota, earned

Weights = tuple[float, ...]

weight = st.one_of(st.just(0.0), st.floats(0, 1, allow_nan=False, allow_subnormal=False))


def curricula(sources: int) -> st.SearchStrategy[list[Weights]]:
    """Weights of some batches, of the same sources; any of them may be 0 for a while."""
    one = st.tuples(*[weight] * sources).filter(lambda w: math.fsum(w) > 1e-6)
    return st.lists(one, min_size=1, max_size=40)


def constant(weights: Weights, batch_size: int = 8) -> Quota:
    return Quota(batch_size, lambda step: weights, [None] * len(weights))


def given_at(quota: Quota, step: int) -> tuple[int, ...]:
    return quota.state(step).given


@given(st.integers(1, 12).flatmap(curricula), st.integers(1, 70))
@settings(max_examples=150, deadline=None)
def test_every_batch_has_the_floor_or_the_ceiling_of_its_weights(
    curriculum: list[Weights], batch_size: int
) -> None:
    quota = Quota(batch_size, lambda step: curriculum[step], [None] * len(curriculum[0]))
    for step, weights in enumerate(curriculum):
        before, after = given_at(quota, step), given_at(quota, step + 1)
        counts = [new - old for old, new in zip(before, after, strict=True)]
        assert sum(counts) == batch_size
        for count, part, chosen in zip(counts, earned(weights, batch_size), weights, strict=True):
            assert abs(count * ONE - part) < ONE
            assert part / ONE == pytest.approx(batch_size * chosen / math.fsum(weights), abs=1e-9)
            assert count == 0 if chosen == 0 else count >= 0


@given(st.floats(0, 1), st.integers(1, 64), st.integers(0, 3000))
@settings(max_examples=100, deadline=None)
def test_the_first_of_two_sources_has_its_exact_share_rounded_half_up(
    first: float, batch_size: int, step: int
) -> None:
    quota = constant((first, 1 - first), batch_size)
    due = step * earned((first, 1 - first), batch_size)[0]
    assert given_at(quota, step)[0] == (2 * due + ONE) // (2 * ONE)


@pytest.mark.parametrize("sources", [2, 3, 8, 32])
@pytest.mark.parametrize("zeros", [False, True])
def test_what_is_owed_stays_small_under_weights_that_change_all_the_time(sources: int, zeros: bool) -> None:
    draw = random.Random(sources)
    curriculum = [
        (*(draw.random() * (not zeros or draw.random() < 0.5) for _ in range(sources - 1)), 0.5)
        for _ in range(2000)
    ]
    quota = Quota(7, lambda step: curriculum[step], [None] * sources)
    worst = max(abs(owed) for step in range(2001) for owed in quota.state(step).owed)
    assert worst <= ONE * (0.5 if sources == 2 else 1.5)


@pytest.mark.parametrize("sources", [4, 16])
def test_even_weights_made_against_it_leave_half_a_sample_for_each_source_at_most(sources: int) -> None:
    """The carpool problem: always the two neighbours in what they are owed, so that they drift apart."""
    draw, played = random.Random(0), []
    quota = Quota(1, lambda step: played[step], [None] * sources)
    for step in range(2000):
        owed = quota.state(step).owed
        order = sorted(range(sources), key=lambda i: owed[i])
        low = draw.randrange(sources - 1)
        ahead = max(0.02, (1 - (owed[order[low + 1]] - owed[order[low]]) / ONE) / 2 - 0.01)
        weights = [0.0] * sources
        weights[order[low + 1]], weights[order[low]] = ahead, 1 - ahead
        played.append(tuple(weights))
        assert max(map(abs, quota.state(step + 1).owed)) <= ONE * sources / 2


def test_a_share_far_below_one_sample_per_batch_gets_its_due_when_weights_change_at_every_batch() -> None:
    quota = Quota(16, lambda step: (0.99 - step * 1e-5, 0.01 + step * 1e-5), [None, None])
    due = sum(16 * (0.01 + step * 1e-5) for step in range(1000))
    assert abs(given_at(quota, 1000)[1] - due) <= 0.5


def test_any_step_can_be_asked_for_at_any_time() -> None:
    def weights(step: int) -> Weights:
        return 0.2, 0.3 + 0.1 * (step % 7), 0.1

    quota, other = Quota(5, weights, [None] * 3), Quota(5, weights, [None] * 3)
    forward = [quota.state(step) for step in range(3 * STRIDE + 2)]
    for step in (3 * STRIDE + 1, 0, STRIDE, STRIDE - 1, 2 * STRIDE + 5, 1, 3 * STRIDE):
        assert other.state(step) == forward[step]


def test_a_change_leaves_the_past_as_it_was_and_takes_effect() -> None:
    now = [0.5]
    quota = Quota(10, lambda step: (now[0], 1 - now[0]) if step >= 600 else (0.5, 0.5), [None, None])
    before = [quota.state(step) for step in range(700)]
    now[0] = 0.9
    quota.forget(600)
    assert [quota.state(step) for step in range(601)] == before[:601]
    assert given_at(quota, 700)[0] == 3000 + 900


def test_the_batches_end_with_a_limited_source() -> None:
    quota = Quota(10, lambda step: (0.25, 0.75), [26, None])
    last = next(step for step in range(100) if quota.state(step + 1).ended)
    assert given_at(quota, last)[0] <= 26 < given_at(quota, last)[0] + 3
    assert quota.state(last + 1).dry == (last, None)
    assert given_at(quota, last + 50) == given_at(quota, last)
    assert not any(quota.earned(last))


def test_a_dry_source_leaves_its_weight_to_the_others_until_none_is_left() -> None:
    quota = Quota(10, lambda step: (0.5, 0.3, 0.2), [40, 200, None], redistribute=True)
    assert quota.earned(7) == earned((0.5, 0.3, 0.2), 10) == (5 * ONE, 3 * ONE, 2 * ONE)
    assert quota.earned(8) == earned((0, 0.3, 0.2), 10)
    assert quota.state(9).dry == (8, None, None)
    assert given_at(quota, 8)[0] == given_at(quota, 500)[0] == 40
    assert sum(given_at(quota, 500)) == 5000
    both = Quota(10, lambda step: (0.5, 0.5), [40, 63], redistribute=True)
    assert both.state(50).ended and sum(given_at(both, 50)) == 100
