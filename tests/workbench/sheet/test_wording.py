"""Numbers and names as readers see them."""

import pytest

from workbench.sheet import wording

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("retained.facts.acc", "accuracy on retained facts"),
        ("new.new_facts.acc", "accuracy on new facts"),
        ("safety.dan.attack_success_rate", "attack success rate on dan"),
        ("language.base.bits_per_byte", "bits per byte on base text"),
        ("retained.arc.v1.acc_norm", "length-normalised accuracy on retained arc.v1"),
    ],
)
def test_metrics_in_words(metric, words):
    assert wording.describe(metric) == words


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.8768, "share", "87.7"),
        (0.47213, "bits", "0.472"),
        (5.4721, "ratio", "5.47"),
        (310.04, "ratio", "310.0"),
        (12345.6, "ratio", "12,346"),
        (9.96e9, "ratio", "1.0e10"),
        (None, "ratio", "not finite"),
    ],
)
def test_amounts(value, unit, text):
    assert wording.amount(value, unit) == text


@pytest.mark.parametrize(
    ("shift", "unit", "text"),
    [
        (-0.03, "share", f"{MINUS}3.0 points"),
        (0.0001, "share", "0.0 points"),
        (0.107, "ratio", "+10.7 %"),
        (11.0, "ratio", f"{TIMES}12.0"),
    ],
)
def test_changes(shift, unit, text):
    assert wording.change(shift, unit) == text


def test_both_ends_of_an_interval_take_the_form_of_its_centre():
    assert wording.span(1.9, 2.3, "ratio", like=2.1) == f"{TIMES}2.9 to {TIMES}3.3"
    assert wording.span(-0.04, -0.01, "share", like=-0.02) == f"{MINUS}4.0 to {MINUS}1.0 points"


def test_sizes_and_durations():
    assert [wording.size(n) for n in (None, 12, 4_300_000, 999_999_999, 16_100_000_000)] == [
        *("", "12 B", "4.3 MB", "1,000 MB", "16.1 GB"),
    ]
    assert [wording.duration(s) for s in (None, 2.14, 59.6, 250, 7500)] == [
        *("", "2.1 s", "1 min 00 s", "4 min 10 s", "2 h 05 min"),
    ]
    assert (wording.bits(8.53), wording.bits(4.0), wording.bits(None)) == ("8.53", "4", "")


def test_counts_of_tokens():
    counts = (0, 900, 250_000, 1.5e6, 2e9, 83_217.4)
    assert [wording.count(n) for n in counts] == ["0", "900", "250 K", "1.5 M", "2 B", "83.22 K"]
