from __future__ import annotations

import pytest

from workbench.evaluation import check_battery, load_battery
from workbench.evaluation.battery import EVALS

NAMES = sorted(path.stem for path in (EVALS / "batteries").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_battery_is_sound_and_names_tasks_that_exist(name: str) -> None:
    battery = load_battery(name)
    assert battery.name == name
    check_battery(battery)


def test_the_miniature_world_is_measured_under_the_keys_that_recipes_expect() -> None:
    battery = load_battery("miniworld")
    keys = {f"{entry.aspect}.{entry.name}.{entry.metric}" for entry in battery.tasks}
    assert keys == {"retained.facts.acc", "new.facts.acc"}
    assert {text.name for text in battery.language} == {"base", "new"}
