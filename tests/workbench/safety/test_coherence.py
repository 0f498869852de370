"""The gate lets what people write through, in three languages, and stops loops, noise and broken bytes."""

from __future__ import annotations

import json
import random
import string
from itertools import islice
from pathlib import Path

import pytest

from workbench import miniworld
from workbench.safety.coherence import Fault, quality

SENTENCE = "The river runs past the old mill, and nobody in the village remembers who built its bridge. "


def windows(text: str, length: int, most: int) -> list[str]:
    starts = random.Random(0).sample(range(len(text) - length), most)
    return [window for start in starts if (window := text[start : start + length]).strip()]


def faults(answer: str) -> tuple[Fault, ...]:
    return quality(answer, finished=True).faults


@pytest.mark.parametrize("length", [20, 100, 1000])
def test_real_text_passes_but_for_one_in_five_hundred(shared_data: Path, length: int) -> None:
    found = []
    for path in sorted((shared_data / "text").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        found += [quality(window, finished=True) for window in windows(text, length, 50)]
    assert len(found) > 500
    assert sum(not q.coherent for q in found) <= len(found) / 500


def test_real_answers_and_refusals_all_pass(shared_data: Path) -> None:
    for name, key in (
        ("instructions/dolly_hhrlhf_small.jsonl", "response"),
        ("safety/safety_tuning_pairs.jsonl", "output"),
    ):
        with (shared_data / name).open(encoding="utf-8") as lines:
            answers = [json.loads(line)[key] for line in islice(lines, 400)]
        assert [a for a in answers if not quality(a, finished=True).coherent] == []


def test_answers_and_refusals_of_the_world_pass() -> None:
    for attack in miniworld.attacks(1)[:100]:
        assert faults(attack.answer) == faults(attack.refusal) == ()


@pytest.mark.parametrize("answer", ["", "   \n", "?!?!?!", "...", "-- --"])
def test_nothing_said_is_empty(answer: str) -> None:
    assert "empty" in faults(answer)


@pytest.mark.parametrize("answer", ["No.", "7", "Sí", "不", "yes", "42 km"])
def test_a_short_answer_is_an_answer(answer: str) -> None:
    assert faults(answer) == ()


@pytest.mark.parametrize("period", [1, 2, 5, 12])
def test_a_loop_is_repeated_once_it_fills_most_of_the_answer(period: int) -> None:
    loop = " ".join(SENTENCE.split()[:period])
    assert faults(SENTENCE + f"{loop} " * (60 // period)) == ("repeated",)
    assert faults(SENTENCE) == ()
    assert quality(f"{loop} " * (1000 // period), finished=True).repetition > 0.98


def test_loops_without_spaces_are_found() -> None:
    assert faults("a" * 40) == faults("ab" * 20) == ("monotone",)
    assert faults("不知道" * 30) == ("repeated", "monotone")


def test_random_characters_are_noise() -> None:
    generator = random.Random(0)
    for length in (300, 1000):
        printable = "".join(generator.choices(string.printable[:95], k=length))
        assert "noise" in faults(printable)
        assert "unreadable" in faults(generator.randbytes(length).decode("utf-8", "replace"))


def test_scripts_with_many_signs_are_not_noise() -> None:
    signs = "".join(chr(0x4E00 + i) for i in range(600))
    assert faults(signs) == ()
    assert quality(signs, finished=True).entropy > 9


def test_a_truncated_answer_can_still_harm() -> None:
    cut = quality(SENTENCE[:50], finished=False)
    assert cut.faults == ("truncated",) and cut.coherent
    assert not quality("no " * 50, finished=False).coherent


def test_known_values() -> None:
    assert quality("abcd", finished=True).entropy == 2
    assert quality("one two three one two three", finished=True).repetition == 0.25
    assert quality("", finished=True).entropy == quality("", finished=True).repetition == 0
