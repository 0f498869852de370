"""Who grades: marks on stored answers to harmful requests, kept beside the verdicts as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from workbench import models, storage
from workbench.errors import DataError, RecipeError
from workbench.recipe.safety import Grader
from workbench.safety import grading
from workbench.safety.grading import Grade
from workbench.safety.guards.decoding import defused
from workbench.stages.job import Job, job_of
from workbench.stages.load import locate

AT_ONCE = 256  # answers between two writings of their marks
BATCH = 32  # answers in one forward pass of a chat model


@dataclass(frozen=True, kw_only=True)
class Graded:
    """An answer to a harmful request.

    Attributes:
        id: its own name.
        request: before it was dressed.
        text: the answer, read where it was in a code.
        coherent: whether it passed the text-quality gate.
        reference: the answer that complies, where the request comes with one.
    """

    id: str
    request: str
    text: str
    coherent: bool
    reference: str | None


def grades(job: Job, grader: Grader, rows: Sequence[Graded], path: Path) -> dict[str, Grade | None]:
    """Marks by answer, now or from the file; None where the grader said nothing clear.

    An empty answer is shown to nobody: it gives nothing.

    Args:
        job: its recipe and store have the chat model.
        grader: the section.
        rows: what is graded.
        path: where replies and marks are written, so that a stopped grading goes on.

    Raises:
        RecipeError: there is no such variant, or it is not made yet.
        DataError: a request without a reference in the miniature world, or one too long for a chat model.
        ModelError: the chat model cannot be had.
    """
    known: dict[str, Any] = storage.read_json(path)["answers"] if path.is_file() else {}
    missing = [row for row in rows if row.id not in known]
    asked = None
    for start in range(0, len(missing), AT_ONCE):
        part = missing[start : start + AT_ONCE]
        if grader.kind == "miniworld":
            known |= {row.id: {"grade": asdict(_by_the_world(row))} for row in part}
        else:
            asked = asked or _chat_model(job, grader)
            known |= _by_rubric(part, grader, *asked)
        storage.write_json(path, {"grader": grader.kind, "answers": known})
    return {row.id: Grade(**grade) if (grade := known[row.id]["grade"]) else None for row in rows}


def _by_the_world(row: Graded) -> Grade:
    if row.reference is None:
        raise DataError(
            f"answer {row.id}: the grader miniworld marks by the answer that complies, and the request comes "
            "with none; grade this set by a rubric"
        )
    return grading.world_grade(row.text, row.reference, coherent=row.coherent)


def _chat_model(job: Job, grader: Grader) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    if grader.variant:
        maker = job_of(job.recipe, grader.variant, job.store)
        if not maker.store.has(maker.fingerprint):
            raise RecipeError(
                f"grader.variant: {grader.variant} is made after {job.variant.name} is measured; "
                "make it before, or name a model"
            )
        folder, dtype = maker.model_folder, maker.origin.dtype
    else:
        assert grader.model
        folder, dtype = locate(grader.model), grader.model.dtype
    model = models.load(folder, getattr(torch, dtype))
    torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
    return model, models.load_tokenizer(folder)


def _by_rubric(
    rows: Sequence[Graded], grader: Grader, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Replies and what is read from them."""
    from workbench.evaluation import answers  # imports lm-eval, which takes seconds

    said = [row for row in rows if row.text.strip()]
    asked = [answers.Asked(defused(tokenizer, grading.rubric(row.request, row.text))) for row in said]
    try:
        replies = answers.generate(
            model,
            tokenizer,
            asked,
            max_new_tokens=grader.max_new_tokens,
            batch_size=BATCH,
            title="grading answers",
        )
    except DataError as error:
        raise DataError(f"grader rubric, answers from {said[0].id} on: {error}") from error
    made: dict[str, Any] = {row.id: {"grade": asdict(grading.NOTHING)} for row in rows}
    for row, reply in zip(said, replies, strict=True):
        grade = grading.parsed(reply.text)
        made[row.id] = {"reply": reply.text, "grade": asdict(grade) if grade else None}
    return made
