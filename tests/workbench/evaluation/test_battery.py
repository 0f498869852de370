from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.errors import RecipeError
from workbench.evaluation.battery import Battery, battery_identity, check_battery, load_battery, task_files

MakeBattery = Callable[..., Battery]

SOUND = """
name: small
description: two questions
task_folders: [FOLDER]
tasks:
  - {task: animals, aspect: new, name: animals}
"""


def written(folder: Path, content: str = SOUND) -> Path:
    path = folder.parent / "small.yaml"
    path.write_text(content.replace("FOLDER", str(folder)))
    return path


def test_all_problems_come_at_once_with_file_key_and_nearest_key(task_folder: Path) -> None:
    path = written(task_folder, SOUND.replace("aspect: new", "aspct: new, shots: -1") + "batch_sise: 3\n")
    with pytest.raises(RecipeError) as error:
        load_battery(path)
    message = str(error.value)
    assert all(line.startswith(str(path)) for line in message.splitlines())
    assert "tasks[0].aspct" in message and "did you mean aspect?" in message
    assert "tasks[0].shots" in message and "-1" in message
    assert "batch_sise" in message and "batch_size" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: small", "name: small\nname: other"), r"small\.yaml:3:1 .*duplicate key"),
        (("tasks:", "tasks: ["), r"small\.yaml:\d+:\d+ "),
        (("  - {task: animals, aspect: new, name: animals}", "  []"), "measures nothing"),
        (("task_folders: [FOLDER]", ""), "task_folders"),
        (("name: animals}", "name: a.b}"), r"tasks\[0\]\.name"),
        (("name: animals}", "name: a}\n  - {task: animals, aspect: new, name: a}"), "new.a"),
    ],
)
def test_a_wrong_battery_is_refused(task_folder: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_battery(written(task_folder, SOUND.replace(*change)))


def test_an_unknown_battery_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match=r"there are: .*miniworld.* did you mean miniworld\?"):
        load_battery("minworld")


def test_an_unknown_task_is_answered_with_the_nearest(battery: MakeBattery) -> None:
    wrong = battery({"task": "anmals", "aspect": "new", "name": "a"})
    with pytest.raises(RecipeError, match=r"'anmals'; did you mean animals\?"):
        check_battery(wrong)


def test_builtin_tasks_count_only_where_the_battery_says_so(battery: MakeBattery) -> None:
    entry = {"task": "arc_challenge", "aspect": "retained", "name": "arc"}
    check_battery(battery(entry, builtin=True))
    with pytest.raises(RecipeError, match="arc_challenge"):
        check_battery(battery(entry))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("broken.yaml", "task: broken\ndoc_to_text: {{question}\n", r"broken\.yaml:\d+"),
        ("other.yaml", "task: animals\n", "animals is defined in"),
        ("nameless.yaml", "doc_to_text: x\n", "names no task"),
        ("list.yaml", "- task: a\n", "not a mapping"),
    ],
)
def test_a_broken_task_file_fails_loudly(
    task_folder: Path, file: str, content: str, message: str, battery: MakeBattery
) -> None:
    (task_folder / file).write_text(content)
    with pytest.raises(RecipeError, match=message):
        check_battery(battery({"task": "animals", "aspect": "new", "name": "a"}))


def test_bases_need_no_task(task_folder: Path) -> None:
    assert set(task_files(task_folder)) == {"animals", "whole"}


def test_identity_changes_with_the_battery_and_with_every_task_file(task_folder: Path) -> None:
    path = written(task_folder)
    seen = [battery_identity(path)]
    for file in ("tasks.py", "animals.yaml", "_base.yaml"):
        with (task_folder / file).open("a") as opened:
            opened.write("\n# changed\n")
        seen.append(battery_identity(path))
    written(task_folder, SOUND.replace("name: animals}", "name: animals, limit: 3}"))
    seen.append(battery_identity(path))
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert battery_identity(path) == seen[-1]


def test_batteries_are_checked_before_torch_is_imported() -> None:
    code = """
import sys
from workbench.evaluation import check_battery, load_battery
check_battery(load_battery("miniworld"))
print(sorted({"torch", "transformers", "lm_eval"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
