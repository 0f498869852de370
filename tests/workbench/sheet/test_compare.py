"""When rows may be compared, and what is concluded."""

import numpy as np
import pytest

from workbench.evaluation.measurement import Measurement
from workbench.sheet import compare, samples
from workbench.sheet.statistics import Interval


def accuracy(right, protocol="p", prefix="q"):
    items = {f"{prefix}{i}": (float(ok), 1.0) for i, ok in enumerate(right)}
    return Measurement("retained", "facts", "acc", items, "mean", True, protocol)


def perplexity(nats, tokens=100.0, protocol="p"):
    items = {f"w{i}": (float(x), tokens) for i, x in enumerate(nats)}
    return Measurement("language", "base", "perplexity", items, "perplexity", False, protocol)


def concluded(mine, theirs, unit, copies=1):
    read = samples.resample({"new": samples.read(mine), "old": samples.read(theirs)}, 0)
    return compare.conclude([compare.Pair("new", read["new"], "old", read["old"], unit)] * copies)[0]


def obstacle(mine, theirs):
    return compare.obstacle(samples.read(mine), samples.read(theirs))


def test_other_protocols_items_and_tokenizers_do_not_pair():
    right = [1, 0, 1]
    assert obstacle(accuracy(right), accuracy(right)) is None
    assert "protocols differ" in obstacle(accuracy(right), accuracy(right, protocol="5 shots"))
    assert "3 and 3, 0 shared" in obstacle(accuracy(right), accuracy(right, prefix="other"))
    assert "tokenizers" in obstacle(perplexity([90, 80]), perplexity([90, 80], tokens=120.0))
    assert "not finite" in obstacle(perplexity([1e9, 1e9]), perplexity([90, 80]))


def test_a_model_equals_itself():
    right = np.random.default_rng(0).uniform(size=500) < 0.8
    found = concluded(accuracy(right), accuracy(right), "share")
    assert (found.difference, found.p, found.verdict) == (0, 1, "equivalent")
    nats = np.random.default_rng(0).normal(200, 20, size=64)
    found = concluded(perplexity(nats), perplexity(nats), "ratio")
    assert (found.difference, found.p, found.verdict) == (0, 1, "equivalent")


def test_rounding_in_the_resampled_sums_is_no_difference():
    nats = np.random.default_rng(5).normal(200, 20, size=64)
    copies = {name: samples.read(perplexity(nats)) for name in "abcdefg"}
    read = samples.resample(copies, 0)
    family = [compare.Pair(name, read[name], "a", read["a"], "ratio") for name in "bcdefg"]
    assert all(found.p == 1 and found.verdict == "equivalent" for found in compare.conclude(family))


def test_pairing_finds_what_the_intervals_of_single_rows_hide():
    """Windows differ much among each other, the two models by a constant 3 %."""
    nats = np.random.default_rng(1).normal(200, 40, size=64)
    better = concluded(perplexity(nats - 3), perplexity(nats), "ratio")
    assert better.verdict == "better"
    assert better.difference < 0
    assert better.ci.high < 0


def test_direction_follows_the_metric():
    generator = np.random.default_rng(2)
    strong, weak = generator.uniform(size=400) < 0.9, generator.uniform(size=400) < 0.5
    assert concluded(accuracy(strong), accuracy(weak), "share").verdict == "better"
    assert concluded(accuracy(weak), accuracy(strong), "share").verdict == "worse"


def test_few_items_are_no_evidence():
    found = concluded(accuracy([1, 1, 1, 0]), accuracy([1, 0, 1, 1]), "share")
    assert found.verdict == "no evidence"
    assert found.sentence.startswith("No evidence that new differs from old in accuracy on retained facts")


def test_a_whole_family_pays_for_its_size():
    number = np.arange(300)
    mine, theirs = number < 240, ((number >= 2) & (number < 252))  # 2 items only mine, 12 only theirs
    alone = concluded(accuracy(mine), accuracy(theirs), "share")
    among = concluded(accuracy(mine), accuracy(theirs), "share", copies=40)
    assert among.p == alone.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert among.p_holm == pytest.approx(min(1, 40 * alone.p))
    assert (alone.verdict, among.verdict) == ("worse", "no evidence")


@pytest.mark.parametrize(
    ("gain", "shift", "p", "unit", "expected"),
    [
        (0.015, Interval(0.011, 0.019), 1e-6, "share", "equivalent"),
        (0.015, Interval(0.009, 0.021), 1e-6, "share", "better"),
        (-0.015, Interval(-0.021, -0.009), 0.049, "share", "worse"),
        (-0.015, Interval(-0.021, -0.009), 0.051, "share", "no evidence"),
        (0.005, Interval(-0.004, 0.0099), 0.5, "ratio", "equivalent"),
        (-0.5, Interval(0.012, 0.019), 1e-6, "ratio", "worse"),
        (-0.5, None, 1.0, "ratio", "no evidence"),
    ],
)
def test_verdicts_follow_the_rule(gain, shift, p, unit, expected):
    assert compare.verdict(gain, shift, p, unit) == expected


def test_sentences_speak_in_points_percent_and_multiples():
    right = np.arange(1000) < 900
    fewer = np.arange(1000) < 700
    sentence = concluded(accuracy(fewer), accuracy(right), "share").sentence
    assert "worse than old in accuracy on retained facts: 70.0 % against 90.0 %, −20.0 points" in sentence  # noqa: RUF001
    assert "n = 1,000" in sentence
    nats = np.random.default_rng(4).normal(200, 10, size=64)
    assert "+10.5 %" in concluded(perplexity(nats + 10), perplexity(nats), "ratio").sentence
    assert "×20.1" in concluded(perplexity(nats + 300), perplexity(nats), "ratio").sentence  # noqa: RUF001
