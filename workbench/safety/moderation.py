"""Moderation sets: labelled texts of a file in evals/moderation, against which guards themselves are scored.

A text is unsafe where one of its labels says so. Labels may be missing, as in sets that were labelled in
several rounds; a text whose labels are all 0 is benign, and in the score of a category those texts stand
aside of which its label is missing. No text stands in the file itself.

Nothing here imports torch before rows are read, so that a wrong file is found early.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from workbench import recipe, storage
from workbench.errors import DataError
from workbench.recipe.section import Name, Section
from workbench.safety import request_rows
from workbench.safety.request_rows import Origin
from workbench.safety.requests import Request, divided, requests_identity

FOLDER = Path(__file__).resolve().parents[2] / "evals" / "moderation"
_LABELS = {"0": False, "1": True, "False": False, "True": True}  # as texts, which csv files hold
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A labelled text: a prompt, or a response to one.

    Attributes:
        id: its own name.
        base_id: texts of one base are one cluster.
        prompt: the user's turn.
        response: the assistant's, which is then what is labelled; None where the prompt is.
        labels: whether it has each hazard, by name; a missing label is left out.
        topics: what it is about, harmful or not, where the set knows.
    """

    id: str
    base_id: str
    prompt: str
    response: str | None = None
    labels: Mapping[str, bool]
    topics: tuple[str, ...] = ()

    @property
    def unsafe(self) -> bool:
        """Whether it has any hazard."""
        return any(self.labels.values())


class LabelledRows(Origin):
    """Where the rows of a moderation set come from, and what they hold."""

    text: str = Field(description="key of what a user says")
    id: str | None = Field(default=None, description="key of the row's name; default: its number")
    labels: dict[str, str] = Field(
        min_length=1, description="name of the hazard by the key of its label, which is 0 or 1 or missing"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = list(self.labels.values())
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"labels: two keys are named {repeated[0]!r}; give each hazard one")
        return self


class ModerationSet(Section):
    """Where labelled texts come from."""

    description: str
    requests: Name | None = Field(
        default=None,
        description="a file of evals/requests, without .yaml: its evaluation part, harmful by topic, and the "
        "answers and refusals that come with it",
    )
    rows: LabelledRows | None = Field(default=None, description="rows of a file or a hub data set")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.requests is None) == (self.rows is None):
            raise ValueError("needs exactly one of requests, rows")
        return self


def load_moderation(name: str) -> ModerationSet:
    """Read a moderation set by its name in evals/moderation.

    Raises:
        RecipeError: no such file, or a problem in it; all problems are reported at once.
    """
    return recipe.read(FOLDER / f"{name}.yaml", ModerationSet)


def moderation_identity(name: str, seed: int) -> dict[str, Any]:
    """What determines the texts of a set: the rows themselves, or a pinned hub revision.

    Raises:
        RecipeError, DataError: as in `texts`.
    """
    settings = load_moderation(name)
    if settings.requests:
        return {"requests": requests_identity(settings.requests, seed)}
    assert settings.rows
    if settings.rows.hub:
        return settings.rows.model_dump(mode="json")
    return {"rows": storage.digest([{**vars(text)} for text in texts(name, seed)])}


def texts(name: str, seed: int) -> list[Text]:
    """The labelled texts of a set: prompts, and after them responses.

    Args:
        name: of a file in evals/moderation.
        seed: of the run, which is that of its world; sets from files are the same in every run.

    Raises:
        RecipeError: as in `load_moderation`.
        DataError: a row without text, with a label that is neither 0 nor 1, or without any label; names
            file and row.
    """
    settings = load_moderation(name)
    if settings.requests:
        return _of_requests(divided(settings.requests, seed)["evaluation"])
    assert settings.rows
    try:
        return _of_rows(settings.rows)
    except DataError as error:
        raise DataError(f"moderation set {name}: {error}") from error


def _of_requests(rows: list[Request]) -> list[Text]:
    topics = sorted({topic for row in rows for topic in row.topics})

    def labelled(row: Request, kind: str, response: str | None, harmful: bool) -> Text:
        return Text(
            id=f"{row.id}/{kind}",
            base_id=row.base_id,
            prompt=row.prompt,
            response=response,
            labels={topic: harmful and topic in row.topics for topic in topics},
            topics=row.topics,
        )

    return [
        *(labelled(row, "request", None, row.harmful) for row in rows),
        *(labelled(row, "answer", row.answer, row.harmful) for row in rows if row.answer),
        *(labelled(row, "refusal", row.refusal, False) for row in rows if row.refusal),
    ]


def _of_rows(rows: LabelledRows) -> list[Text]:
    """Texts with the same words are one base."""
    made: dict[str, Text] = {}
    bases: dict[str, str] = {}
    for number, where, row in request_rows.read(rows):
        name = str(request_rows.value(row, rows.id, where)) if rows.id else str(number)
        if name in made:
            raise DataError(f"{where}: its id {name} is that of another row too; ids must be unique")
        prompt = request_rows.text(row, rows.text, where)
        base = bases.setdefault(" ".join(_WORD.findall(prompt.casefold())) or prompt, name)
        made[name] = Text(id=name, base_id=base, prompt=prompt, labels=_labels(row, rows.labels, where))
    return list(made.values())


def _labels(row: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, bool]:
    found = {}
    for key, name in names.items():
        said = row.get(key)
        if said is None or said == "":
            continue
        if str(said) not in _LABELS:
            raise DataError(f"{where}: {key} is {said!r}; a label is 0 or 1, or missing")
        found[name] = _LABELS[str(said)]
    if not found:
        raise DataError(
            f"{where}: has none of the labels {', '.join(names)}; correct labels, or leave it out"
        )
    return found
