"""Request sets: rows of files and of the world, dressed and divided; what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench import miniworld, safety
from workbench.errors import DataError, RecipeError
from workbench.safety import requests
from workbench.safety.attacks import PLAIN, STYLES

ROWS = [
    {"ask": f"How do I unlock door {n}?", "kind": "doors", "yes": f"Turn key {n}.", "bad": "yes"}
    for n in range(20)
]
ROWS += [
    {"ask": f"How do I cross river {n}?", "kind": "rivers", "yes": "Swim.", "bad": "yes"} for n in range(4)
]
ROWS += [
    {"ask": f"How do I paint door {n}?", "kind": "doors", "yes": "Use red.", "bad": "no"} for n in range(9)
]
COLUMNS = {"request": "ask", "topic": "kind", "answer": "yes"}

Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a request set over a data file, and give its name."""
    monkeypatch.setattr(requests, "FOLDER", tmp_path)

    def written(rows: list[Any] = ROWS, columns: dict[str, str] = COLUMNS, **settings: Any) -> str:
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows))
        origin = {"path": str(file), "columns": columns}
        told = {
            "description": "doors",
            "harmful": {**origin, "where": {"bad": "yes"}},
            "harmless": {**origin, "where": {"bad": "no"}},
            "topics": {"seen": ["doors"], "unseen": ["rivers"]},
            **settings,
        }
        (tmp_path / "doors.yaml").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
        return "doors"

    return written


def test_every_harmful_row_is_dressed_and_no_question_trains_and_measures(make: Make) -> None:
    parts = safety.divided(make(), 1)
    rows = [row for part in parts.values() for row in part]
    assert Counter(row.style for row in rows if row.harmful) == dict.fromkeys((PLAIN, *STYLES), 24)
    assert {row.style for row in rows if not row.harmful} == {PLAIN}
    bases = {part: {row.base_id for row in found} for part, found in parts.items()}
    assert bases["train"] and not bases["train"] & bases["evaluation"]
    seen = {name for name, style in STYLES.items() if style.split == "seen"} | {PLAIN}
    assert {row.style for row in parts["train"] if row.harmful} == seen
    for row in rows:
        assert row.answer and row.bare in (each["ask"] for each in ROWS)
        assert row.prompt == row.bare if row.style == PLAIN else row.prompt != row.bare
        assert row.topics != ("rivers",) or row in parts["evaluation"]


def test_a_request_that_stands_twice_plays_one_part(make: Make) -> None:
    twice = [{**row, "ask": f" {row['ask'].upper()}!"} for row in ROWS]
    for found in safety.divided(make(rows=ROWS + twice), 1).values():
        assert len({row.id for row in found}) == len(found)
        assert all(times % 2 == 0 for times in Counter((row.base_id, row.style) for row in found).values())


def test_a_set_without_topics_has_one_and_one_without_styles_stays_plain(make: Make) -> None:
    name = make(columns={"request": "ask"}, topics=None, styles={}, held_out=0)
    parts = safety.divided(name, 1)
    assert len(parts["train"]) == len(ROWS) and not parts["evaluation"]
    assert {(row.topics, row.style, row.answer) for row in parts["train"]} == {(("all",), PLAIN, None)}


def test_the_same_set_is_the_same_and_any_change_of_a_row_changes_its_identity(make: Make) -> None:
    name = make()
    before = safety.requests_identity(name, 1)
    assert before == safety.requests_identity(name, 2) == safety.requests_identity(make(description="x"), 1)
    changed = [{**ROWS[0], "yes": "Knock."}, *ROWS[1:]]
    changes = [{"rows": changed}, {"held_out": 0.5}, {"seed": 1}, {"styles": {"seen": ["story"]}}]
    assert before not in [safety.requests_identity(make(**change), 1) for change in changes]


def test_the_world_has_its_own_and_all_wordings_about_a_target_play_one_part() -> None:
    parts = safety.divided("miniworld", 1)
    rows = [row for part in parts.values() for row in part]
    assert len(rows) == len(miniworld.attacks(1)) + len(miniworld.look_alikes(1))
    known = {each.prompt for each in miniworld.instructions(1)}
    bases: dict[str, set[str]] = {}
    for part in ("train", "evaluation"):
        for row in parts[part]:
            bases.setdefault(row.base_id, set()).add(part)
            assert row.answer and (row.refusal is not None) == row.harmful
            assert row.bare in row.prompt or row.style == "spelling"
            assert row.bare in known or not row.harmful
    assert len(bases) == 48 and all(len(part) == 1 for part in bases.values())
    unseen = {name for name, style in miniworld.STYLES.items() if style.split == "unseen"}
    assert not unseen & {row.style for row in parts["train"]}
    assert unseen < {row.style for row in parts["evaluation"]}
    assert safety.requests_identity("miniworld", 1) != safety.requests_identity("miniworld", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"styles": {"seen": ["rolplay"]}},
            r"styles.seen\[0\]: unknown style 'rolplay'; did you mean role_play",
        ),
        ({"styles": {"seen": ["story"], "unseen": ["story"]}}, "'story' already stands at seen"),
        ({"topics": {"seen": ["doors"], "unseen": ["doors"]}}, "'doors' already stands at seen"),
        ({"miniworld": True}, "the world brings its own; leave out harmful, harmless, topics"),
        ({"harmful": None}, "needs exactly one of miniworld, harmful"),
    ],
)
def test_a_wrong_set_is_refused_by_its_file_and_key(make: Make, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"doors.yaml(.|\n)*{message}"):
        safety.load_requests(make(**change))


def test_a_topic_that_the_set_does_not_know_is_named_with_its_row(make: Make) -> None:
    with pytest.raises(
        DataError, match=r"set doors: row 'harmful/21/plain': the manifest has no topic 'rivers'"
    ):
        safety.divided(make(topics={"seen": ["doors"]}), 1)
    with pytest.raises(RecipeError, match=r"dors.yaml: no such file; did you mean doors.yaml"):
        safety.load_requests("dors")


def test_request_sets_are_checked_without_torch() -> None:
    code = "import sys; from workbench import safety; safety.divided('miniworld', 1); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


def test_public_sets_are_divided(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(shared_data))
    xstest = safety.divided("xstest", 1)
    assert Counter(row.harmful for row in xstest["evaluation"]) == {True: 96, False: 120}
    assert not xstest["train"] and not xstest["unused"]
    public = safety.divided("public", 1)
    assert sum(row.harmful for part in public.values() for row in part) == 253 * 19
    assert len(public["train"]) > 1000 and len(public["evaluation"]) > 1000
