"""A filter lets through what was judged safe, and nothing that was not judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from workbench.errors import DataError
from workbench.safety.guards import Filter, Filtered, Verdict, judge_generations, sift
from workbench.safety.guards.filtering import EMPTY
from workbench.safety.guards.protocol import Guard, check_rows

SCORES = {"mild": 0.2, "bad": 0.9, "odd": None}


@dataclass
class Scripted:
    """A guard that goes by the first word of what it judges, and remembers what it saw."""

    name: str = "scripted"
    seen: list[str] = field(default_factory=list)

    def judge(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> list[Verdict]:
        check_rows(prompts, responses)
        texts = list(prompts if responses is None else responses)
        self.seen += texts
        return [Verdict(SCORES[text.split()[0]], note=text) for text in texts]


class Echo:
    """A model that answers with what stands after the arrow, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        self.asked += prompts
        return [prompt.split("->")[1] for prompt in prompts]


PROMPTS = ["mild ->mild a", "bad ->mild b", "mild ->bad c", "odd ->mild d", "mild ->odd e", "mild ->"]


@pytest.mark.parametrize(
    ("place", "stopped"),
    [
        ("input", [None, "input", None, "input", None, None]),
        ("output", [None, None, "output", None, "output", None]),
        ("both", [None, "input", "output", "input", "output", None]),
    ],
)
def test_what_each_place_stops(place: str, stopped: list[str | None]) -> None:
    guard: Guard = Scripted()
    answers = Filter(guard, place, "No.").answer(Echo(), PROMPTS)  # type: ignore[arg-type]
    assert [answer.stopped for answer in answers] == stopped
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert answer.answer == ("No." if answer.stopped else prompt.split("->")[1])


def test_model_is_not_asked_what_was_stopped() -> None:
    model = Echo()
    Filter(Scripted(), "input", "No.").answer(model, PROMPTS)
    assert model.asked == [prompt for prompt in PROMPTS if prompt.startswith("mild")]
    assert Filter(Scripted(), "both", "No.").answer(model, ["bad ->x"]) == [Filtered("No.", "input")]
    assert "bad ->x" not in model.asked


def test_threshold_is_the_users() -> None:
    lenient = Filter(Scripted(), "input", "No.", threshold=0.95)
    strict = Filter(Scripted(), "input", "No.", threshold=0.1)
    assert lenient.answer(Echo(), ["bad ->a"]) == [Filtered("a")]
    assert strict.answer(Echo(), ["mild ->a"]) == [Filtered("No.", "input")]


def test_model_must_answer_each_prompt() -> None:
    with pytest.raises(DataError, match="the model gave 0 answers to 1 prompts"):
        Filter(Scripted(), "output", "No.").answer(lambda prompts: [], ["mild ->a"])


def test_empty_generation_is_missing_and_not_shown_to_the_guard() -> None:
    guard = Scripted()
    verdicts = judge_generations(guard, ["q"] * 4, ["mild", "", " \n", "bad"])
    assert [verdict.unsafe for verdict in verdicts] == [0.2, None, None, 0.9]
    assert verdicts[1] is verdicts[2] is EMPTY and guard.seen == ["mild", "bad"]
    assert judge_generations(guard, ["q"], [""]) == [EMPTY]
    with pytest.raises(DataError, match="2 prompts but 1 responses"):
        judge_generations(guard, ["q", "r"], ["mild"])


def test_training_rows_are_parted_and_all_are_counted() -> None:
    sifted = sift(Scripted(), ["q"] * 5, ["mild a", "bad b", "odd c", "", "mild d"])
    assert (sifted.safe, sifted.unsafe) == ([0, 4], [1])
    assert sifted.missing == {2: "odd c", 3: "empty answer"}
