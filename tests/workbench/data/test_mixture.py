"""What is drawn depends on seed, step and weights alone, and every window comes up once per epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data import Mixture, TokenFile
from workbench.errors import DataError

Make = Callable[[str, int], TokenFile]
L = 16


@pytest.fixture
def files(make_tokens: Make) -> dict[str, TokenFile]:
    """Three sources of different length."""
    return {name: make_tokens(name, documents) for name, documents in [("old", 60), ("new", 25), ("rare", 7)]}


WEIGHTS = {"old": 0.3, "new": 0.6, "rare": 0.1}


@given(st.integers(0, 3000), st.integers(1, 9), st.integers(1, 11), st.integers(0, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranks_share_the_global_batch(
    files: dict[str, TokenFile], step: int, batch_size: int, processes: int, seed: int
) -> None:
    mixture = Mixture(files, WEIGHTS, seed, batch_size, L)
    whole = mixture.batch(step)
    parts = [mixture.batch(step, rank, processes) for rank in range(processes)]
    for field in ("tokens", "labels", "positions", "documents"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))
    assert [source for part in parts for source in part.sources] == whole.sources
    assert whole.tokens.shape == (batch_size, L)
    sizes = [len(part.sources) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_batches_do_not_depend_on_what_was_asked_before(files: dict[str, TokenFile]) -> None:
    forward, backward = Mixture(files, WEIGHTS, 3, 8, L), Mixture(files, WEIGHTS, 3, 8, L)
    batches = {step: forward.batch(step).tokens for step in range(20)}
    for step in reversed(range(20)):
        assert torch.equal(backward.batch(step).tokens, batches[step])


def test_batches_hold_what_the_counts_say(files: dict[str, TokenFile]) -> None:
    mixture = Mixture(files, WEIGHTS, 0, 8, L)
    seen: Counter[str] = Counter()
    for step in range(60):
        assert mixture.counts(step) == {name: seen[name] for name in WEIGHTS}
        assert all(abs(seen[name] - weight * step * 8) < 1 for name, weight in WEIGHTS.items())
        seen.update(mixture.batch(step).sources)


def test_every_window_comes_once_per_epoch_and_in_a_new_order(files: dict[str, TokenFile]) -> None:
    mixture = Mixture(files, {"rare": 1.0}, 0, 1, L)
    windows = files["rare"].windows(L)
    every = sorted(files["rare"].window(i, L).tokens[:-1].tolist() for i in range(windows))
    epochs = [
        [mixture.batch(step).tokens[0].tolist() for step in range(epoch * windows, (epoch + 1) * windows)]
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == every for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert mixture.epochs(2 * windows) == {"rare": 2.0}


def test_seed_changes_the_order_and_nothing_else(files: dict[str, TokenFile]) -> None:
    one, two = Mixture(files, WEIGHTS, 1, 8, L), Mixture(files, WEIGHTS, 2, 8, L)
    assert one.counts(17) == two.counts(17)
    assert not torch.equal(one.batch(0).tokens, two.batch(0).tokens)


def test_rows_of_a_batch_are_not_sorted_by_source(files: dict[str, TokenFile]) -> None:
    mixture = Mixture(files, {"old": 0.5, "new": 0.5}, 0, 8, L)
    assert {mixture.batch(step).sources[0] for step in range(20)} == {"old", "new"}


def test_another_source_does_not_change_the_order_within_a_source(files: dict[str, TokenFile]) -> None:
    def drawn(weights: dict[str, float]) -> list[list[int]]:
        mixture = Mixture(files, weights, 5, 1, L)
        rows = [mixture.batch(step) for step in range(40)]
        return [row.tokens[0].tolist() for row in rows if row.sources == ["new"]]

    assert drawn({"new": 0.5, "old": 0.5}) == drawn({"new": 1.0})[:20]


def test_new_weights_take_effect_from_their_step_on_and_can_be_replayed(files: dict[str, TokenFile]) -> None:
    constant, changed = Mixture(files, WEIGHTS, 0, 10, L), Mixture(files, WEIGHTS, 0, 10, L)
    changed.reweigh(30, {"old": 0.8, "new": 0.2})
    assert torch.equal(constant.batch(29).tokens, changed.batch(29).tokens)
    before, after = changed.counts(30), changed.counts(130)
    assert {name: after[name] - before[name] for name in WEIGHTS} == {"old": 800, "new": 200, "rare": 0}
    replayed = Mixture(files, changed.history[0][1], 0, 10, L)
    for step, weights in changed.history[1:]:
        replayed.reweigh(step, weights)
    assert torch.equal(replayed.batch(77).tokens, changed.batch(77).tokens)


def test_unknown_source_is_refused(files: dict[str, TokenFile]) -> None:
    with pytest.raises(DataError, match=r"no source is named neww; there are new, old, rare"):
        Mixture(files, {"neww": 1.0}, 0, 8, L)


@pytest.mark.parametrize("weights", [{"old": -0.1, "new": 1.1}, {"old": 0.0}, {}, {"old": float("nan")}])
def test_weights_that_are_no_shares_are_refused(
    files: dict[str, TokenFile], weights: dict[str, float]
) -> None:
    with pytest.raises(DataError, match="weights must be finite"):
        Mixture(files, weights, 0, 8, L)


def test_source_without_one_window_is_refused(files: dict[str, TokenFile]) -> None:
    length = files["rare"].num_tokens
    with pytest.raises(DataError, match=f"source rare: {length} tokens, but a window .* takes {length + 1}"):
        Mixture(files, WEIGHTS, 0, 8, length)
    Mixture(files, WEIGHTS, 0, 8, length - 1)


def test_the_past_cannot_be_reweighed(files: dict[str, TokenFile]) -> None:
    mixture = Mixture(files, WEIGHTS, 0, 8, L)
    mixture.reweigh(10, WEIGHTS)
    with pytest.raises(DataError, match="go forward only"):
        mixture.reweigh(9, WEIGHTS)
