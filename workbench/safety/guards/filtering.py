"""A guard at work: in front of a model and behind it, over stored generations, and over training data.

A missing verdict is never taken for safe: a filter stops what it could not judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.errors import DataError
from workbench.safety.guards.protocol import UNSAFE_THRESHOLD, Guard, Verdict

Generate = Callable[[Sequence[str]], Sequence[str]]  # prompts -> one answer each

EMPTY = Verdict(None, note="empty answer")


@dataclass(frozen=True)
class Filtered:
    """What a user of a filtered model gets.

    Attributes:
        answer: the model's, or the refusal that stands in its place.
        stopped: the filter that put the refusal there; None where the answer is the model's.
    """

    answer: str
    stopped: Literal["input", "output"] | None = None


@dataclass(frozen=True)
class Filter:
    """A guard in front of a model, behind it, or both.

    Attributes:
        guard: judges prompts on the way in, and answers with their prompts on the way out.
        place: where it stands.
        refusal: what is said in place of what was stopped.
        threshold: probability above which a text is unsafe.
    """

    guard: Guard
    place: Literal["input", "output", "both"]
    refusal: str
    threshold: float = UNSAFE_THRESHOLD

    def answer(self, generate: Generate, prompts: Sequence[str]) -> list[Filtered]:
        """Answers of the filtered model; the model is not asked what the input filter stops.

        An empty answer passes: it says nothing that could be unsafe.

        Raises:
            DataError, ModelError: as in `Guard.judge`, rows counted among those that the guard saw; or
                the model did not give one answer to each prompt.
        """
        answers = [Filtered(self.refusal, "input")] * len(prompts)
        rows = list(range(len(prompts)))
        if self.place != "output":
            verdicts = self.guard.judge(prompts)
            rows = [row for row in rows if self._passes(verdicts[row])]
        asked = [prompts[row] for row in rows]
        generated = list(generate(asked)) if asked else []
        if len(generated) != len(asked):
            raise DataError(
                f"the model gave {len(generated)} answers to {len(asked)} prompts; give one to each"
            )
        for row, text in zip(rows, generated, strict=True):
            answers[row] = Filtered(text)
        if self.place != "input":
            for row, verdict in zip(rows, judge_generations(self.guard, asked, generated), strict=True):
                if answers[row].answer.strip() and not self._passes(verdict):
                    answers[row] = Filtered(self.refusal, "output")
        return answers

    def _passes(self, verdict: Verdict) -> bool:
        return verdict.is_unsafe(self.threshold) is False


def judge_generations(guard: Guard, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
    """A verdict on each stored generation; an empty one is not shown to the guard and has `EMPTY`.

    Raises:
        DataError, ModelError: as in `Guard.judge`, rows counted among those that are not empty.
    """
    if len(prompts) != len(responses):
        raise DataError(f"{len(prompts)} prompts but {len(responses)} responses; give one to each prompt")
    rows = [row for row, response in enumerate(responses) if response.strip()]
    verdicts = [EMPTY] * len(responses)
    if rows:
        judged = guard.judge([prompts[row] for row in rows], [responses[row] for row in rows])
        for row, verdict in zip(rows, judged, strict=True):
            verdicts[row] = verdict
    return verdicts


@dataclass(frozen=True)
class Sifted:
    """Rows of training data, by number from 0, as a guard parts them.

    Attributes:
        safe: to be kept.
        unsafe: judged unsafe.
        missing: not judged, with the reason; to be left out, and counted.
    """

    safe: list[int]
    unsafe: list[int]
    missing: dict[int, str]


def sift(
    guard: Guard, prompts: Sequence[str], responses: Sequence[str], threshold: float = UNSAFE_THRESHOLD
) -> Sifted:
    """Part rows of training data by what a guard says of their responses.

    Raises:
        DataError, ModelError: as in `judge_generations`.
    """
    verdicts = dict(enumerate(judge_generations(guard, prompts, responses)))
    judged = {row: verdict.is_unsafe(threshold) for row, verdict in verdicts.items()}
    return Sifted(
        safe=[row for row, unsafe in judged.items() if unsafe is False],
        unsafe=[row for row, unsafe in judged.items() if unsafe],
        missing={row: verdicts[row].note for row, unsafe in judged.items() if unsafe is None},
    )
