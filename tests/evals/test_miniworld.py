from __future__ import annotations

from typing import Any

import pytest

from workbench.evaluation import load_battery
from workbench.evaluation.harness import Harness


def documents(seed: int) -> dict[str, list[dict[str, Any]]]:
    harness = Harness(load_battery("miniworld"), {"seed": seed})
    return {
        name: list(task.eval_docs)
        for entry in harness.battery.tasks
        for name, task in harness.tasks(entry).items()
    }


def test_the_same_seed_asks_the_same_and_another_seed_asks_otherwise() -> None:
    assert documents(1) == documents(1)
    first, second = documents(1), documents(2)
    assert set(first) == set(second) == {"miniworld_facts_base", "miniworld_facts_new"}
    for name in first:
        asked = {(row["prompt"], row["choices"][row["gold"]]) for row in first[name]}
        assert not asked & {(row["prompt"], row["choices"][row["gold"]]) for row in second[name]}


def test_questions_have_four_different_choices_and_gold_is_everywhere() -> None:
    for rows in documents(1).values():
        assert len(rows) >= 100
        assert all(len(set(row["choices"])) == 4 for row in rows)
        for place in range(4):
            assert sum(row["gold"] == place for row in rows) / len(rows) == pytest.approx(0.25, abs=0.1)
