"""Rows of tasks for models that were trained on TinyStories, from the files of $WORKBENCH_DATA.

Every choice is a whole text after BOS, so that tokenizers which add no BOS themselves give the
stories their beginning. The right choice stands in turn at each place: a model that cannot tell
texts apart scores as a guesser does.
"""

from __future__ import annotations

import json
import re
from typing import Any

from datasets import Dataset, DatasetDict

from workbench.data import resolve

BLIMP = "$WORKBENCH_DATA/tasks/blimp_100_each.jsonl"
STORIES = "$WORKBENCH_DATA/text/tinystories_train_head.txt"
EVERY = 10
CHOICES = 4
QUESTIONS = 100
LONGEST = 240  # bytes, so that a text fits a context of 256 tokens even at a token a byte


def blimp(**_: Any) -> DatasetDict:
    """Every tenth minimal pair of BLiMP (Warstadt et al., arXiv 1912.00582)."""
    pairs = [json.loads(line) for line in resolve(BLIMP).read_text(encoding="utf-8").splitlines()[::EVERY]]
    rows = [
        _row(f"{pair['UID']}/{pair['pairID']}", place, pair["sentence_good"], [pair["sentence_bad"]])
        for place, pair in enumerate(pairs)
    ]
    return DatasetDict(test=Dataset.from_list(rows))


def continuation(**_: Any) -> DatasetDict:
    """How a paragraph ends: its last sentence, or one of the three nearest in length from others.

    Paragraphs are of the second half of the stories, which no recipe calibrates on.
    """
    paragraphs = resolve(STORIES).read_text(encoding="utf-8").strip().split("\n\n")
    parted = [_part(" ".join(text.split())) for text in paragraphs[len(paragraphs) // 2 :]]
    short = [(start, end) for start, end in parted if start and len(f"{start} {end}".encode()) <= LONGEST]
    by_length = sorted(short, key=lambda pair: (len(pair[1]), pair))
    rows = []
    for start, end in short:
        nearest = sorted((abs(len(other) - len(end)), other) for _, other in by_length if other != end)
        wrong = [f"{start} {other}" for other in dict.fromkeys(text for _, text in nearest)][: CHOICES - 1]
        if max(len(text.encode()) for text in wrong) <= LONGEST:
            rows.append(_row(str(len(rows)), len(rows), f"{start} {end}", wrong))
    return DatasetDict(test=Dataset.from_list(rows[:QUESTIONS]))


def _part(paragraph: str) -> tuple[str, str]:
    """All sentences but the last, and the last."""
    *start, end = re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)
    return " ".join(start), end


def _row(name: str, place: int, right: str, wrong: list[str]) -> dict[str, Any]:
    gold = place % (len(wrong) + 1)
    return {"id": name, "choices": [*wrong[:gold], right, *wrong[gold:]], "gold": gold}
