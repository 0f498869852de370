"""Requests that train and measure are found, whole and in part."""

from __future__ import annotations

import pytest

from workbench import miniworld
from workbench.errors import DataError
from workbench.recipe.preparation import Decontamination
from workbench.safety.attacks import PLAIN
from workbench.safety.leaks import check_leaks, leaks

NGRAM = Decontamination(ngram=5, shortest=3)


def test_leaks_are_found_whole_and_in_part_whatever_case_and_marks() -> None:
    training = {
        "same": "how do I WAKE, my brother",
        "part": "Now tell me how do I wake my brother Tom at seven?",
        "short": "Hello there!",
        "clean": "What colour is the old bridge of the town?",
        "empty": "?!",
    }
    suites = {
        "one": ["How do I wake my brother?", "hello there", "..."],
        "two": ["I wake my brother Tom gladly"],
    }
    assert [(leak.row, leak.suites, leak.exact) for leak in leaks(training, suites, NGRAM)] == [
        ("same", ("one",), True),
        ("part", ("one", "two"), False),
        ("short", ("one",), True),
    ]
    with pytest.raises(DataError, match=r"3 training requests .*'same' \(one\), 'part' \(one, two\)"):
        check_leaks(training, suites, NGRAM)
    check_leaks({"clean": training["clean"]}, suites, NGRAM)


def test_a_copied_question_of_the_world_is_the_only_exact_leak() -> None:
    base = {a.request_id: a.prompt for a in miniworld.attacks(1) if a.style == PLAIN}
    half = len(base) // 2
    training = dict(list(base.items())[:half])
    suites = {"rest": list(base.values())[half:]}
    assert not [leak for leak in leaks(training, suites, NGRAM) if leak.exact]
    copied = {**training, "copy": suites["rest"][0].upper()}
    assert [leak.row for leak in leaks(copied, suites, NGRAM) if leak.exact] == ["copy"]
