"""Rows of the miniature world for lm-eval tasks; the world's seed comes from the task manager's metadata."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from datasets import Dataset, DatasetDict

from workbench import miniworld
from workbench.miniworld.facts import Language


def facts(language: Language, seed: int | None = None, **_: Any) -> DatasetDict:
    """Held-out 4-way questions about the facts of one language.

    Args:
        language: base or new.
        seed: of the world; pass it as `metadata={"seed": ...}`.

    Raises:
        ValueError: the metadata holds no seed.
    """
    if seed is None:
        raise ValueError("miniworld tasks need a seed: pass metadata={'seed': 1} to TaskManager")
    rows = [asdict(question) for question in miniworld.questions(language, seed)]
    return DatasetDict(test=Dataset.from_list(rows))
