from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from workbench.evaluation import load_battery
from workbench.evaluation.harness import Harness


@pytest.fixture
def rows(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    monkeypatch.setenv("WORKBENCH_DATA", str(shared_data))
    harness = Harness(load_battery("tinystories"), {"seed": 1})
    return {
        name: list(task.eval_docs)
        for entry in harness.battery.tasks
        for name, task in harness.tasks(entry).items()
    }


def test_blimp_is_every_tenth_pair(rows: dict[str, list[dict[str, Any]]]) -> None:
    pairs = rows["tinystories_blimp"]
    assert len(pairs) == 340
    assert pairs[0]["choices"][0] == "Who should Derek hug after shocking Richard?"
    assert all(len(pair["choices"]) == 2 for pair in pairs)


def test_who_always_takes_one_place_scores_as_a_guesser(rows: dict[str, list[dict[str, Any]]]) -> None:
    for asked in rows.values():
        places = Counter(row["gold"] for row in asked)
        assert max(places.values()) - min(places.values()) <= 1


def test_endings_share_their_beginning_and_fit_a_short_context(rows: dict[str, list[dict[str, Any]]]) -> None:
    asked = rows["tinystories_continuation"]
    assert len(asked) == 100
    for row in asked:
        assert len(set(row["choices"])) == 4
        assert max(len(choice.encode()) for choice in row["choices"]) <= 240
        assert len({choice.split()[0] for choice in row["choices"]}) == 1
