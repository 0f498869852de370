"""Control LLM's batteries ask tasks that lm-eval has for scores that they give; ours are scored rightly."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import lm_eval
import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from workbench import recipe
from workbench.evaluation import load_battery
from workbench.evaluation.battery import EVALS

NAMES = ("control_llm_math", "control_llm_chinese")
FOLDER = EVALS / "control_llm"
RECIPES = Path(__file__).parents[2] / "recipes" / "llama3.1-8b"
# Those of lm-eval's 14,000 files that hold the tasks of the two batteries; all take it half a minute.
BUILTIN = [
    Path(lm_eval.__file__).parent / "tasks" / name
    for name in ("llama3/instruct", "ceval", "cmmlu", "bbh", "mmlu/default", "mmlu_pro", "gpqa/cot_zeroshot")
]


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(include_path=[str(path) for path in (FOLDER, *BUILTIN)], include_defaults=False)


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("control_llm_tasks", FOLDER / "tasks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _leaves(manager: TaskManager, name: str, overrides: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of all tasks of a task, tag or group; functions stay text."""
    entry = manager.task_index[name]
    if entry.kind is Kind.TAG:
        return [leaf for task in sorted(entry.tags) for leaf in _leaves(manager, task, overrides)]
    config = {**load_yaml(entry.yaml_path, resolve_func=False), **overrides}
    if "group" not in config:
        return [config]
    found: list[dict[str, Any]] = []
    for member in config["task"]:
        named = {"task": member} if isinstance(member, str) else dict(member)
        found += _leaves(manager, named.pop("task"), named)
    return found


@pytest.mark.parametrize("battery", NAMES)
def test_every_task_gives_the_metric_under_the_filter_that_is_asked_for(
    manager: TaskManager, battery: str
) -> None:
    for entry in load_battery(battery).tasks:
        leaves = _leaves(manager, entry.task, {})
        for leaf in leaves:
            assert entry.metric in {metric["metric"] for metric in leaf["metric_list"]}, leaf["task"]
            filters = {each["name"] for each in leaf.get("filter_list", [])} or {"none"}
            assert entry.filter in filters, leaf["task"]
        assert len(leaves) == {"ceval-valid": 52, "cmmlu": 67, "bbh": 27}.get(entry.task, len(leaves))


@pytest.mark.parametrize(
    "leaf", ["control_llm_math", "control_llm_math_hard", "control_llm_ceval_cot", "control_llm_gpqa"]
)
def test_reasoning_has_room(manager: TaskManager, leaf: str) -> None:
    (config,) = _leaves(manager, leaf, {})
    assert config["generation_kwargs"]["max_gen_toks"] >= 1024
    assert config["num_fewshot"] == 0


@pytest.mark.parametrize("name", ["control-llm-math", "control-llm-chinese"])
def test_the_recipe_expects_what_its_battery_measures(name: str) -> None:
    loaded = recipe.load(RECIPES / f"{name}.yaml", []).recipe
    assert loaded.evaluate
    tasks = load_battery(loaded.evaluate.battery).tasks
    keys = {f"{entry.aspect}.{entry.name}.{entry.metric}" for entry in tasks}
    made = {variant.name for variant in recipe.variants(loaded)}
    assert {expected.partition(".")[0] for expected in loaded.expect} <= made
    assert {expected.partition(".")[2] for expected in loaded.expect} == keys
    assert all(0 <= low < high <= 1 for low, high in loaded.expect.values())


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (r"So it is \boxed{\frac{1}{2}}.", 1),
        (r"First \boxed{3}, no: $\boxed{\dfrac{1}{2}}$", 1),
        (r"\boxed{\frac12}", 1),
        (r"\boxed{2}", 0),
        ("one half", 0),
        (r"\boxed{\frac{1}{2}", 0),
        (r"\fbox{\frac{1}{2}}", 0),
    ],
)
def test_mathematics_is_scored_by_the_last_whole_box(tasks: ModuleType, answer: str, score: int) -> None:
    rows = datasets.Dataset.from_list(
        [{"problem": "?", "solution": r"$\boxed{\frac{1}{2}}$", "level": "Level 5"}]
    )
    doc = tasks.math(rows)[0]
    assert tasks.score_math(doc, [answer]) == {"exact_match": score}


def test_hard_problems_are_those_of_level_5(tasks: ModuleType) -> None:
    rows = [{"problem": str(n), "solution": rf"\boxed{{{n}}}", "level": f"Level {n}"} for n in range(1, 6)]
    hard = tasks.math_hard(datasets.Dataset.from_list(rows))
    assert [(row["problem"], row["answer"]) for row in hard] == [("5", "5")]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("因为 A 不对、所以答案是B。", "B"),
        ("答案是A。不对。再想、答案为\uff1a(C)", "C"),
        ("答案\uff1aD", "D"),
        ("我不知道", None),
    ],
)
def test_the_letter_is_read_from_the_end_of_the_reasoning(
    manager: TaskManager, text: str, letter: str | None
) -> None:
    (config,) = _leaves(manager, "control_llm_cmmlu_cot", {})
    found = re.findall(config["filter_list"][0]["filter"][0]["regex_pattern"], text)
    assert (found[-1] if found else None) == letter


def test_all_subjects_become_one_task(tasks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, subject: str, split: str) -> datasets.Dataset:
        assert (path, split) == ("some/exam", "val")
        return datasets.Dataset.from_list([{"question": f"{subject} {n}"} for n in range(2)])

    monkeypatch.setattr(tasks, "get_dataset_config_names", lambda path: ["art", "law"])
    monkeypatch.setattr(tasks, "load_dataset", load)
    questions = tasks.subjects("some/exam", "val", seed=1)["test"]["question"]
    assert list(questions) == ["art 0", "art 1", "law 0", "law 1"]
