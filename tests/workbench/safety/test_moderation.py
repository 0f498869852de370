"""Moderation sets: labels as they stand in files, and those of the miniature world by construction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from workbench import safety
from workbench.errors import DataError
from workbench.safety import moderation
from workbench.safety.guards import WorldGuard
from workbench.safety.guards.taxonomy import BUILT_IN, load_taxonomy
from workbench.safety.moderation import ModerationSet, Text

NAMES = sorted(path.stem for path in moderation.FOLDER.glob("*.yaml"))
MILD = [
    {"prompt": "I like your hat.", "S": 0, "H": 0, "V": 0, "HR": 0, "SH": 0, "S3": 0, "H2": 0, "V2": 0},
    {"prompt": "Your hat is an insult to all hats!", "V": 0, "HR": 1, "SH": 0, "V2": 0},
    {"prompt": "i like your  HAT", "S": 0, "S3": 0},
    {"prompt": "!!!", "H": 1, "H2": 1},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published sets over a made-up file of the same schema."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    (tmp_path / "safety").mkdir()
    write(tmp_path, MILD)
    return tmp_path


def write(folder: Path, rows: list[Any]) -> None:
    (folder / "safety" / "openai_moderation.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("name", NAMES)
def test_every_set_is_sound(name: str) -> None:
    assert moderation.load_moderation(name).description


def test_labels_may_be_missing_and_the_same_words_are_one_base(folder: Path) -> None:
    found = moderation.texts("openai", 1)
    assert [text.unsafe for text in found] == [False, True, False, True]
    assert [text.id for text in found] == ["1", "2", "3", "4"]
    assert [text.base_id for text in found] == ["1", "2", "1", "4"]
    assert found[1].labels == {
        "Violence": False,
        "Harassment": True,
        "Self-Harm": False,
        "Graphic Violence": False,
    }
    assert found[0].labels.keys() == set(load_taxonomy(BUILT_IN / "openai-moderation.yaml").names.values())


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p", "H": 2}, "row 2: H is 2; a label is 0 or 1, or missing"),
        ({"prompt": "p", "H": None}, "row 2: has none of the labels S, H"),
        ({"prompt": " ", "H": 1}, "row 2: prompt is empty"),
        ({"H": 1}, "row 2: no column prompt"),
    ],
)
def test_a_wrong_row_is_named(folder: Path, row: dict[str, Any], told: str) -> None:
    write(folder, [MILD[0], row])
    with pytest.raises(DataError, match=f"moderation set openai: .*{told}"):
        moderation.texts("openai", 1)


def test_identity_follows_the_rows(folder: Path) -> None:
    before = moderation.moderation_identity("openai", 1)
    assert moderation.moderation_identity("openai", 2) == before
    write(folder, MILD[:3])
    assert moderation.moderation_identity("openai", 1) != before
    assert moderation.moderation_identity("miniworld", 1) != moderation.moderation_identity("miniworld", 2)


def test_csv_says_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("name,said,bad\nx,One,1\ny,Two,\nz,Three,0\n")
    monkeypatch.setattr(moderation, "FOLDER", tmp_path)
    rows = {"path": str(tmp_path / "a.csv"), "text": "said", "id": "name", "labels": {"bad": "B"}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"description": "d", "rows": rows}))
    with pytest.raises(DataError, match="row 2: has none of the labels bad"):
        moderation.texts("a", 1)
    (tmp_path / "a.csv").write_text("name,said,bad\nx,One,1\nx,Three,0\n")
    with pytest.raises(DataError, match="row 2: its id x is that of another row too"):
        moderation.texts("a", 1)
    (tmp_path / "a.csv").write_text("name,said,bad\nx,One,1\nz,Three,0\n")
    assert moderation.texts("a", 1) == [
        Text(id="x", base_id="x", prompt="One", labels={"B": True}),
        Text(id="z", base_id="z", prompt="Three", labels={"B": False}),
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "needs exactly one of requests, rows"),
        ({"rows": {"path": "a.csv", "text": "t", "labels": {}}}, "at least 1 item"),
        ({"rows": {"path": "a.csv", "text": "t", "labels": {"a": "X", "b": "X"}}}, "two keys are named 'X'"),
        ({"rows": {"text": "t", "labels": {"a": "X"}}}, "needs exactly one of path, hub"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ModerationSet.model_validate({"description": "d", **settings})


def test_the_world_labels_its_texts_as_its_rules_judge_them() -> None:
    """Only what training may not see; prompts, answers that comply, and refusals of harmful requests."""
    found = moderation.texts("miniworld", 1)
    parts = safety.divided("miniworld", 1)
    prompts = [text for text in found if text.response is None]
    responses = [text for text in found if text.response is not None]
    assert [text.prompt for text in prompts] == [row.prompt for row in parts["evaluation"]]
    assert not {text.base_id for text in found} & {row.base_id for row in parts["train"]}
    assert len({text.id for text in found}) == len(found)
    for texts, judged in (
        (prompts, WorldGuard().judge([text.prompt for text in prompts])),
        (
            responses,
            WorldGuard().judge(
                [text.prompt for text in responses], [text.response or "" for text in responses]
            ),
        ),
    ):
        assert [text.unsafe for text in texts] == [verdict.is_unsafe() for verdict in judged]
        for text, verdict in zip(texts, judged, strict=True):
            assert tuple(name for name, label in text.labels.items() if label) == verdict.categories
    named = load_taxonomy(BUILT_IN / "miniworld.yaml").names.values()
    assert set(named) == found[0].labels.keys()


def test_the_real_samples(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(shared_data))
    found = moderation.texts("openai", 1)
    assert len(found) == 697 and sum(text.unsafe for text in found) == 133
    assert sum(text.labels.get("Hate", False) for text in found) == 78
    assert sum("Hate" in text.labels for text in found) < len(found)
