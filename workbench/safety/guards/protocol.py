"""What every guard promises: for each prompt, or each answer to one, a verdict or an honest gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from workbench.errors import DataError

UNSAFE_THRESHOLD = 0.5


@dataclass(frozen=True)
class Verdict:
    """What a guard says of one prompt, or of one answer.

    Attributes:
        unsafe: probability that the judged text is unsafe; None where the guard gave no usable answer.
        categories: names of the hazards that the guard sees in it.
        refusal: whether the answer refuses; None where the guard does not say.
        note: what a reader of the number must know, such as why it is missing; empty when all is well.
    """

    unsafe: float | None
    categories: tuple[str, ...] = ()
    refusal: bool | None = None
    note: str = ""

    def is_unsafe(self, threshold: float = UNSAFE_THRESHOLD) -> bool | None:
        """Whether the probability is above the threshold; None where it is missing, which is not safe."""
        return None if self.unsafe is None else self.unsafe > threshold


class Guard(Protocol):
    """A model that judges prompts, or answers to them."""

    @property
    def name(self) -> str:
        """Which guard it is, for the protocol of a measurement."""

    def judge(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> list[Verdict]:
        """One verdict a row: of the prompt where there are no responses, else of the response.

        Raises:
            DataError: a blank prompt or response, lists of different lengths, or a text that is longer
                than the guard can read; rows are counted from 0.
            ModelError: the guard does not answer as a guard of its kind.
        """


@runtime_checkable
class CategoryGuard(Guard, Protocol):
    """A guard that can score each of its hazards alone."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of its hazards."""

    def category_scores(
        self, prompts: Sequence[str], responses: Sequence[str] | None, names: Sequence[str]
    ) -> Tensor:
        """Probability of each of C named hazards in each of n texts.

        Returns:
            [n, C] float64; NaN where the guard gave no verdict.

        Raises:
            DataError, ModelError: as in `judge`.
        """


def check_rows(prompts: Sequence[str], responses: Sequence[str] | None) -> None:
    """Refuse rows that hold nothing to judge.

    Raises:
        DataError: names the first such row, counted from 0.
    """
    if responses is not None and len(responses) != len(prompts):
        raise DataError(
            f"{len(prompts)} prompts but {len(responses)} responses; give one response to each prompt"
        )
    for kind, texts in (("prompt", prompts), ("response", responses or ())):
        for row, text in enumerate(texts):
            if not text.strip():
                raise DataError(
                    f"row {row}: the {kind} is empty, and there is nothing to judge; leave the row out, and "
                    "count it as missing"
                )
