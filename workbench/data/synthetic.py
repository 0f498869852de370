"""Question and answer pairs written from snippets of text: the prompt, the reading of it, and the filters.

Source: Llama-3-SynE (arXiv 2407.18743, section on synthetic data): an instruction-tuned model writes a
question and its answer from a snippet of a scientific page, and snippet, question and answer are read as
one plain text. The filters are ours, since the paper does not print its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.data.words import words
from workbench.recipe.preparation import Synthetic

SNIPPET = "{snippet}"

Fault = Literal[
    "too long for the writer", "did not end", "no answer", "short", "not from the snippet", "seen before"
]


@dataclass(frozen=True)
class Written:
    """What the writer gave for one snippet.

    Attributes:
        text: up to the mark that ends a pair, without it; None where the prompt did not fit.
        finished: whether the writer came to an end by itself.
    """

    text: str | None
    finished: bool


@dataclass(frozen=True)
class Pair:
    """A question and its answer, without the marks that part them."""

    question: str
    answer: str


def prompt(settings: Synthetic, snippet: str) -> str:
    """What the writer goes on from."""
    return settings.prompt.replace(SNIPPET, snippet)


def parse(settings: Synthetic, text: str) -> Pair | None:
    """The pair in what was written, or None where nothing parts an answer from a question.

    A chat model may say the lead of the question once more; it is taken off.
    """
    question, mark, answer = text.strip().removeprefix(_lead(settings)).strip().partition(settings.answer)
    return Pair(question.strip(), answer.strip()) if mark and question.strip() and answer.strip() else None


def fault(settings: Synthetic, snippet: str, written: Written) -> Fault | None:
    """Why what was written is not kept, or None. Whether it was seen before, only the caller knows."""
    if written.text is None:
        return "too long for the writer"
    if settings.discard == "longer" and not written.finished:
        return "did not end"
    pair = parse(settings, written.text)
    if pair is None:
        return "no answer"
    if words([pair.question, pair.answer]).counts.min() < settings.shortest:
        return "short"
    return "not from the snippet" if overlap(pair.answer, snippet) < settings.overlap else None


def overlap(answer: str, snippet: str) -> float:
    """Share of the answer's words that are in the snippet; 0 where the answer has no words."""
    both = words([answer, snippet])
    said, known = both.hashes[: both.starts[1]], both.hashes[both.starts[1] :]
    return float(np.isin(said, known).mean()) if len(said) else 0.0


def document(settings: Synthetic, snippet: str, pair: Pair) -> str:
    """The text that is trained on: the snippet, the question under its lead, the answer under its mark."""
    question = f"{_lead(settings)} {pair.question}".lstrip()
    answer = f"{settings.answer} {pair.answer}".strip()
    return f"{snippet.strip()}\n\n{question}\n{answer}"


def _lead(settings: Synthetic) -> str:
    """What the prompt ends with, behind the snippet: the lead of the question, such as "Question:"."""
    return settings.prompt.rsplit(SNIPPET, 1)[-1].rsplit("\n", 1)[-1].strip()
