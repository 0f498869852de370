"""Marks are given once, kept as they are given, and missing where a chat model says nothing clear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workbench import miniworld, models, storage
from workbench.errors import DataError, RecipeError
from workbench.evaluation import answers
from workbench.evaluation.answers import Asked, Generation
from workbench.recipe.inputs import Model, NewModel
from workbench.recipe.safety import Grader, Guarded
from workbench.recipe.schema import Recipe
from workbench.safety.grading import NOTHING, Grade
from workbench.stages import grading
from workbench.stages.grading import Graded, grades
from workbench.stages.job import Job, jobs_by_name
from workbench.storage import Store

WORLD = Grader(kind="miniworld")
RUBRIC = Grader(kind="rubric", model=Model(path="m"))
MARKED = "Refused: 0\nConvincing: 4\nSpecific: 2"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    guard = Guarded.model_validate({"kind": "guard", "guard": {"kind": "miniworld"}})
    recipe = Recipe(name="r", description="", model=Model(path=str(tmp_path)), stages=[guard])
    return jobs_by_name(recipe, Store(tmp_path / "store"))["base"]


def row(name: str, text: str = "Burn it.", reference: str | None = None) -> Graded:
    return Graded(id=name, request="How?", text=text, coherent=True, reference=reference)


def speaking(monkeypatch: pytest.MonkeyPatch, replies: Sequence[str]) -> list[str]:
    """Let the chat model give these replies in turn; gives what it was asked."""
    tokenizer = models.train_tokenizer([each.prompt for each in miniworld.instructions(1)[:50]], 300)
    monkeypatch.setattr(grading, "_chat_model", lambda *_: (None, tokenizer))
    asked: list[str] = []

    def generate(model: Any, tokenizer: Any, rows: Sequence[Asked], **_: Any) -> list[Generation]:
        said = [Generation(replies[len(asked) + place], True) for place in range(len(rows))]
        asked.extend(each.prompt for each in rows)
        return said

    monkeypatch.setattr(answers, "generate", generate)
    return asked


def test_what_is_not_three_marks_is_missing_and_an_empty_answer_is_shown_to_nobody(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = speaking(monkeypatch, [MARKED, "I would rather not."])
    rows = [row("a"), row("b", text=" "), row("c", text="End</s>")]
    found = grades(job, RUBRIC, rows, tmp_path / "grades.json")
    assert found == {"a": Grade(False, 4, 2), "b": NOTHING, "c": None}
    assert len(asked) == 2
    kept = storage.read_json(tmp_path / "grades.json")
    assert kept["grader"] == "rubric" and kept["answers"]["c"]["reply"] == "I would rather not."


def test_a_grading_that_was_stopped_goes_on(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "AT_ONCE", 2)
    asked = speaking(monkeypatch, [MARKED] * 3)  # and then there is none
    rows = [row(name) for name in "abcde"]
    with pytest.raises(IndexError):
        grades(job, RUBRIC, rows, tmp_path / "grades.json")
    before = len(asked)
    again = speaking(monkeypatch, [MARKED] * 5)
    assert set(grades(job, RUBRIC, rows, tmp_path / "grades.json")) == set("abcde")
    assert before == 2 and len(again) == 3


def test_the_world_marks_by_its_answers_and_needs_them(job: Job, tmp_path: Path) -> None:
    told = next(each for each in miniworld.instructions(1) if each.harmful)
    (found,) = grades(job, WORLD, [row("a", told.answer, told.answer)], tmp_path / "one.json").values()
    assert found == Grade(False, 5, 5)
    with pytest.raises(DataError, match="answer a: the grader miniworld marks by the answer that complies"):
        grades(job, WORLD, [row("a")], tmp_path / "two.json")


@pytest.mark.parametrize("context", [1024, 256])
def test_a_model_folder_grades_and_what_it_babbles_is_missing(job: Job, tmp_path: Path, context: int) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1, "kv_heads": 1}
    section = NewModel.model_validate(
        {**sizes, "context": context, "vocab_size": 320, "tokenizer_sources": ("a",)}
    )
    tokenizer = models.train_tokenizer([each.prompt for each in miniworld.instructions(1)], 320)
    models.save(models.new(section, 0), tokenizer, tmp_path / "chat", {})
    grader = Grader(kind="rubric", model=Model(path=str(tmp_path / "chat")), max_new_tokens=4)
    if context == 1024:
        assert grades(job, grader, [row("a")], tmp_path / "grades.json") == {"a": None}
    else:
        with pytest.raises(DataError, match="grader rubric, answers from a on: row 0: the request has"):
            grades(job, grader, [row("a")], tmp_path / "grades.json")


def test_a_variant_that_is_made_later_cannot_grade(job: Job, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"grader\.variant: guarded is made after base is measured"):
        grades(job, Grader(kind="rubric", variant="guarded"), [row("a")], tmp_path / "grades.json")
