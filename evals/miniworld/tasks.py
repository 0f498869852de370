"""Rows of the miniature world for lm-eval tasks; the world's seed comes from the task manager's metadata."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from datasets import Dataset, DatasetDict

from workbench import miniworld
from workbench.miniworld.facts import Language, Topic


def facts(language: Language, topic: Topic | None = None, seed: int | None = None, **_: Any) -> DatasetDict:
    """Held-out 4-way questions about the facts of one language.

    Args:
        language: base or new.
        topic: only questions about it; None for all.
        seed: of the world; pass it as `metadata={"seed": ...}`.

    Raises:
        ValueError: the metadata holds no seed.
    """
    if seed is None:
        raise ValueError("miniworld tasks need a seed: pass metadata={'seed': 1} to TaskManager")
    asked = miniworld.questions(language, seed)
    rows = [asdict(question) for question in asked if topic in (None, question.topic)]
    return DatasetDict(test=Dataset.from_list(rows))
