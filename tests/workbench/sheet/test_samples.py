"""Scores, intervals and errors of single samples."""

import math

import numpy as np
import pytest

from workbench.evaluation.measurement import Measurement
from workbench.sheet import samples


def measurement(items, aggregation="mean", aspect="retained", metric="acc", protocol="p"):
    named = {f"i{i}": pair for i, pair in enumerate(items)}
    return Measurement(aspect, "facts", metric, named, aggregation, aggregation == "mean", protocol)


def drawn(items, aggregation="mean", seed=0):
    return samples.resample({"row": samples.read(measurement(items, aggregation))}, seed)["row"]


def test_right_or_wrong_items_have_closed_forms():
    sample = drawn([(1.0, 1.0)] * 30 + [(0.0, 1.0)] * 10)
    values = [1.0] * 30 + [0.0] * 10
    assert sample.draws is None
    assert sample.value == 0.75
    assert sample.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(40))
    assert sample.interval.low < 0.75 < sample.interval.high


def test_graded_items_are_bootstrapped():
    sample = drawn([(x, 1.0) for x in np.random.default_rng(0).uniform(size=80)])
    assert sample.draws is not None
    assert sample.interval.low < sample.value < sample.interval.high
    assert sample.stderr == pytest.approx((sample.interval.high - sample.interval.low) / 3.92, rel=0.1)


def test_rows_with_the_same_items_share_their_draws_in_any_order():
    items = [(x, 10.0) for x in np.random.default_rng(1).uniform(5, 20, size=40)]
    first = measurement(items, "perplexity")
    backwards = Measurement(**{**vars(first), "items": dict(reversed(first.items.items()))})
    found = samples.resample({"a": samples.read(first), "b": samples.read(backwards)}, 3)
    assert np.array_equal(found["a"].draws, found["b"].draws)


def test_a_single_graded_item_has_no_interval():
    sample = drawn([(3.0, 2.0)], "perplexity")
    assert sample.value == pytest.approx(math.exp(1.5))
    assert sample.interval is None
    assert sample.stderr is None


def test_a_score_beyond_the_finite_numbers_is_none():
    sample = drawn([(1e6, 1.0), (1e6, 1.0)], "perplexity")
    assert sample.value is None
    assert sample.interval is None


def test_no_items_are_refused():
    with pytest.raises(ValueError, match=r"retained\.facts\.acc"):
        samples.read(measurement([]))
