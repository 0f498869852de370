"""A guard's verdicts on labelled texts: asked once, kept, measured; the guarded model is not touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench import evaluation, storage
from workbench.evaluation.battery import ModerationEntry
from workbench.recipe.inputs import Model
from workbench.recipe.safety import Guarded
from workbench.recipe.schema import Evaluate, Recipe
from workbench.safety import moderation as sets
from workbench.safety.guards.protocol import Verdict, check_rows
from workbench.safety.moderation import Text
from workbench.stages import evaluate, judges, moderation
from workbench.stages.job import Job, jobs_by_name
from workbench.storage import Store

ENTRY = ModerationEntry(texts="miniworld", by_category=True)
SCORES: dict[str, float | None] = {"mild": 0.2, "bad": 0.7, "odd": None}


class Scripted:
    """Goes by the first word of what it judges; knows two hazards, one of which texts are labelled with."""

    name = "scripted"
    categories = ("hats", "shoes")

    def __init__(self) -> None:
        self.seen: list[str] = []

    def judge(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> list[Verdict]:
        check_rows(prompts, responses)
        texts = list(prompts if responses is None else responses)
        self.seen += texts
        return [Verdict(SCORES[text.split()[0]], note=text) for text in texts]

    def category_scores(
        self, prompts: Sequence[str], responses: Sequence[str] | None, names: Sequence[str]
    ) -> Tensor:
        assert list(names) == ["hats"]
        scores = [SCORES[text.split()[0]] for text in (prompts if responses is None else responses)]
        told = [[float("nan") if score is None else score] for score in scores]
        return torch.tensor(told, dtype=torch.float64)


def text(name: str, label: bool, prompt: str, response: str | None = None) -> Text:
    labels = {"hats": label, "ties": False}
    return Text(id=name, base_id=name, prompt=prompt, response=response, labels=labels, topics=("hats",))


TEXTS = [
    text("a", True, "bad one"),
    text("b", False, "mild one"),
    text("c", True, "odd one"),
    text("d", True, "mild two"),
    text("e", False, "mild asked", "bad answer"),
    text("f", True, "mild asked", "bad answer"),
]


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    made = Scripted()
    monkeypatch.setattr(judges, "guard", lambda judge, recipe, store: made)
    monkeypatch.setattr(sets, "texts", lambda name, seed: TEXTS)
    return made


@pytest.fixture
def job(tmp_path: Path) -> Job:
    guard = {"kind": "guard", "guard": {"kind": "wildguard", "model": {"path": "m"}, "threshold": 0.6}}
    recipe = Recipe(
        name="r",
        description="",
        model=Model(path=str(tmp_path)),
        stages=[Guarded.model_validate(guard)],
    )
    return jobs_by_name(recipe, Store(tmp_path / "store"))["guarded"]


def test_verdicts_become_measurements(guard: Scripted, job: Job, tmp_path: Path) -> None:
    moderation.tell(job, ENTRY, tmp_path)
    found = {each.key.removeprefix("safety."): each for each in evaluation.read(tmp_path)}
    assert found["moderation.recall"].value == 0.5 and found["moderation.missing"].value == 0.25
    assert (
        found["moderation.false_alarms"].value == 0 and found["moderation_responses.false_alarms"].value == 1
    )
    assert found["moderation_responses.f1"].value == pytest.approx(2 / 3)
    own = found["moderation_auprc.hats"]
    assert dict(own.items) == {"a": (0.7, 1), "b": (0.2, -1), "c": (0, 0), "d": (0.2, 1)}
    assert "4 prompts, 3 unsafe" in own.protocol and "above 0.6" in own.protocol
    assert "2 responses, 1 unsafe" in found["moderation_responses.f1"].protocol
    assert "moderation_auprc.ties" not in found


def test_categories_are_scored_where_the_battery_wants_them(
    guard: Scripted, job: Job, tmp_path: Path
) -> None:
    moderation.tell(job, ModerationEntry(texts="miniworld"), tmp_path)
    assert not [each.key for each in evaluation.read(tmp_path) if "_auprc" in each.key]


def test_what_was_judged_is_not_judged_again(
    guard: Scripted, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the second of two parts, it goes on with the rest."""
    monkeypatch.setattr(moderation, "AT_ONCE", 2)
    write: Any = storage.write_json
    written: list[Path] = []

    def stopped(path: Path, value: Any) -> None:
        write(path, value)
        written.append(path)
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        moderation.tell(job, ENTRY, tmp_path)
    moderation.tell(job, ENTRY, tmp_path)
    moderation.tell(job, ENTRY, tmp_path)
    assert guard.seen == [text.response or text.prompt for text in TEXTS]
    kept = storage.read_json(tmp_path / "moderation-verdicts.json")
    assert list(kept) == ["a", "b", "c", "d"]
    assert kept["c"] == {"unsafe": None, "categories": [], "note": "odd one", "by_category": {}}


def test_a_guard_without_categories_of_its_own(
    guard: Scripted, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        name, judge = "plain", guard.judge

    monkeypatch.setattr(judges, "guard", lambda judge, recipe, store: Plain())
    moderation.tell(job, ENTRY, tmp_path)
    keys = [each.key for each in evaluation.read(tmp_path)]
    assert "safety.moderation.auprc" in keys and not [key for key in keys if "_auprc" in key]


def test_labelled_texts_are_part_of_guarded_rows_alone(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other texts measure the guarded row anew, and leave the others as they are."""
    recipe = Recipe(
        name="r",
        description="",
        model=Model(path=str(tiny_model_folder)),
        stages=[Guarded.model_validate({"kind": "guard", "guard": {"kind": "miniworld"}})],
        evaluate=Evaluate(battery="miniworld-guards"),
    )
    jobs = jobs_by_name(recipe, Store(tmp_path / "store"))
    before = {name: evaluate.fingerprint(job) for name, job in jobs.items()}
    monkeypatch.setattr(evaluate, "moderation_identity", lambda name, seed: {"rows": "others"})
    after = {name: evaluate.fingerprint(job) for name, job in jobs.items()}
    assert before["base"] == after["base"] and before["guarded"] != after["guarded"]
