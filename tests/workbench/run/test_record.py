"""A record says where a run came from, and no secret gets into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import recipe
from workbench.run import record


def test_the_record_names_recipe_versions_and_machine(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 20)
    facts = record.provenance(recipe.load(tiny_recipe, ["seed=5"]), "make recipe=tiny")
    assert facts["seed"] == 5 and facts["overrides"] == ["seed=5"]
    assert set(facts["versions"]) == set(record.PACKAGES)
    assert facts["device"]["memory_bytes"] > 10**8
    assert "hf_x" not in json.dumps(facts)


def test_events_are_appended_in_order(tmp_path: Path) -> None:
    events = record.Events(tmp_path / "events.jsonl")
    events("first", n=1)
    record.Events(tmp_path / "events.jsonl")("second")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["first", "second"] and lines[0]["n"] == 1
