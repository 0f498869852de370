"""Documents and scoring of the tasks that Control LLM reports and lm-eval does not have."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets, get_dataset_config_names, load_dataset
from lm_eval.tasks.hendrycks_math.utils import is_equiv, last_boxed_only_string, remove_boxed


def math(dataset: Dataset) -> Dataset:
    """The problems of MATH with the answer that their solution boxes."""
    return dataset.map(lambda row: {"answer": remove_boxed(last_boxed_only_string(row["solution"]))})


def math_hard(dataset: Dataset) -> Dataset:
    """Its problems of the highest level."""
    return math(dataset.filter(lambda row: row["level"] == "Level 5"))


def score_math(doc: dict[str, Any], results: list[str]) -> dict[str, int]:
    """Whether the last boxed answer is the right one, after the normalisation of Hendrycks et al."""
    return {"exact_match": int(is_equiv(boxed(results[0]), doc["answer"]))}


def boxed(text: str) -> str:
    """What the last box of a text holds; nothing if there is none, or it is not closed."""
    _, box, rest = text.rpartition("\\boxed{")
    depth = 1
    for end, character in enumerate(rest if box else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:end]
    return ""


def subjects(path: str, split: str, **_: Any) -> DatasetDict:
    """The questions of all subjects of a data set in one.

    Args:
        path: id on the hub; each configuration is a subject.
        split: the split of every subject.
    """
    parts = [load_dataset(path, subject, split=split) for subject in get_dataset_config_names(path)]
    return DatasetDict(test=concatenate_datasets(parts))
