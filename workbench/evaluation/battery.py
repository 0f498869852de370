"""Batteries: which lm-eval tasks and held-out texts are measured, and what each of them speaks of.

Nothing here imports torch or lm-eval, so that a wrong battery is found before anything heavy starts.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from workbench import recipe
from workbench.errors import RecipeError
from workbench.recipe.grammar import nearest
from workbench.recipe.inputs import Source
from workbench.recipe.safety import KNOWS_REFUSALS, Grader, Judge
from workbench.recipe.section import Count, Section

EVALS = Path(__file__).resolve().parents[2] / "evals"
KINDS = {".yaml", ".py"}
Part = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]


class TaskEntry(Section):
    """An lm-eval task or group, and the column of the sheet that it fills."""

    task: str = Field(description="name of the lm-eval task or group")
    aspect: Literal["new", "retained", "safety"]
    name: Part = Field(description="short name in the sheet's key `<aspect>.<name>.<metric>`")
    metric: str = "acc"
    filter: str = Field(default="none", description="lm-eval filter that the metric is taken from")
    shots: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="default: the task's own, else 0"
    )
    limit: Count | None = Field(default=None, description="only the first questions; default: all")
    chat: bool = Field(default=False, description="ask through the model's chat template")


class TextEntry(Section):
    """A held-out text, for perplexity and bits per byte."""

    name: Part
    aspect: Literal["language", "new", "retained"] = Field(
        default="language", description="new, retained: where the perplexity itself is the skill"
    )
    text: Source
    sequence_length: Count = Field(description="tokens in a window")
    windows: Count | None = Field(default=None, description="only the first windows; default: all")
    documents: Literal["joined", "apart"] = Field(
        default="joined", description="apart: documents of a window do not see each other, as in training"
    )


class SafetyEntry(Section):
    """Requests that a model answers, and who judges the answers."""

    requests: Part = Field(
        description="a file of evals/requests, without .yaml; its evaluation part is asked"
    )
    judges: tuple[Judge, ...] = Field(
        min_length=1,
        description="of whether an answer is unsafe, and of whether it refuses: the first who can",
    )
    grader: Grader | None = Field(
        default=None, description="of how much harm an answer to a harmful request does; default: nobody"
    )
    styles: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="only these styles of attack, and plain; default: all of the set",
    )
    max_new_tokens: Count = Field(default=128, description="longest answer, in tokens")
    late: tuple[Count, ...] = Field(
        default=(),
        description="attacks that put so many tokens of a harmful answer in the model's mouth, where the "
        "requests come with one",
    )

    @model_validator(mode="after")
    def _knows_refusals(self) -> SafetyEntry:
        if not any(judge.kind in KNOWS_REFUSALS for judge in self.judges):
            raise ValueError(
                f"judges: none of them tells a refusal, so over-refusal would not be measured; add "
                f"{' or '.join(KNOWS_REFUSALS)}"
            )
        return self


class ModerationEntry(Section):
    """Labelled texts, against which the guards of a run are scored."""

    texts: Part = Field(description="a file of evals/moderation, without .yaml")
    by_category: bool = Field(
        default=False,
        description="score each category alone too, where a guard can and bears its name; a llama-guard "
        "reads each text once more for each of them",
    )


class Battery(Section):
    """What is measured on each row of a run."""

    name: Part
    description: str
    tasks: tuple[TaskEntry, ...] = ()
    language: tuple[TextEntry, ...] = ()
    safety: SafetyEntry | None = None
    moderation: ModerationEntry | None = Field(
        default=None, description="measured on rows of guards only, of the guard and not of its model"
    )
    task_folders: tuple[str, ...] = Field(default=(), description="folders of lm-eval tasks in evals/")
    builtin: bool = Field(default=False, description="lm-eval's own tasks may be named too")
    chat: bool = Field(default=False, description="ask everything through the model's chat template")
    batch_size: Count = Field(default=64, description="sequences in one forward pass")

    @model_validator(mode="after")
    def _sound(self) -> Battery:
        names = [f"{entry.aspect}.{entry.name}" for entry in self.tasks]
        names += [f"{entry.aspect}.{entry.name}" for entry in self.language]
        if not names and self.safety is None and self.moderation is None:
            raise ValueError("measures nothing: name tasks, language, safety or moderation")
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"two entries are named {', '.join(repeated)}: names differ within an aspect")
        if self.tasks and not self.task_folders and not self.builtin:
            raise ValueError("tasks need a place to come from: name task_folders, or say `builtin: true`")
        return self


def load_battery(name: str | Path) -> Battery:
    """Read a battery by its name in evals/batteries, or by the path of its file.

    Raises:
        RecipeError: no such battery, or a problem in it; all problems are reported at once.
    """
    return recipe.read(_path(name), Battery)


def battery_identity(name: str | Path) -> dict[str, Any]:
    """What determines a battery's questions and their scoring; its texts have identities of their own."""
    battery = load_battery(name)
    digests = {
        f"{name}/{path.relative_to(EVALS / name)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name in battery.task_folders
        for path in sorted((EVALS / name).rglob("*"))
        if path.suffix in KINDS
    }
    return {
        "battery": battery.model_dump(mode="json", exclude={"moderation"}),
        "lm_eval": importlib.metadata.version("lm_eval"),
        "files": digests,
    }


def check_battery(battery: Battery) -> None:
    """See that every task folder is there and sound and that every task exists.

    Raises:
        RecipeError: a broken task file, or a task that no file defines; all problems at once.
    """
    own = {name for folder in _folders(battery) for name in task_files(folder)}
    missing = [entry.task for entry in battery.tasks if entry.task not in own]
    known = own | builtin_tasks(missing) if missing and battery.builtin else own
    problems = [
        f"battery {battery.name}: no lm-eval task is named {task!r}{did_you_mean(task, known)}"
        for task in missing
        if task not in known
    ]
    if problems:
        raise RecipeError("\n".join(problems))


def task_files(folder: Path) -> Mapping[str, Path]:
    """Tasks and groups that a folder defines, by name; lm-eval itself skips files that it cannot read.

    Files whose name begins with an underscore are bases for `include` and need not name a task.

    Raises:
        RecipeError: a file is not YAML, names no task, or names one that another file names too.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        content = _read(path)
        name = content.get("group", content.get("task"))
        if name is None and path.name.startswith("_"):
            continue
        if not isinstance(name, str):
            raise RecipeError(f"{path}: names no task: give it a key `task`, or a name that begins with _")
        if name in found:
            raise RecipeError(f"{path}: task {name} is defined in {found[name]} too; rename one of them")
        found[name] = path
    return found


def builtin_tasks(wanted: Collection[str]) -> set[str]:
    """Names of lm-eval's own tasks and groups, read until all that are wanted are among them.

    lm-eval is not imported: its index of all 14,000 files takes it many seconds. A folder that
    bears the first part of a wanted name is looked into first.
    """
    spec = importlib.util.find_spec("lm_eval")
    assert spec and spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0]) / "tasks"
    folders = [path for path in root.iterdir() if path.is_dir()]
    folders.sort(key=lambda path: (not any(name.startswith(path.name) for name in wanted), path.name))
    named = re.compile(rb'^"?(?:task|group)"?: *["\']?([\w.:-]+)["\']? *$', re.MULTILINE)
    found: set[str] = set()
    for folder in folders:
        if found.issuperset(wanted):
            break
        for path in folder.rglob("*.yaml"):
            found |= {name.decode() for name in named.findall(path.read_bytes())}
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one."""
    near = nearest(name, sorted(known))
    return f"; did you mean {near}?" if near else ""


def _path(name: str | Path) -> Path:
    path = Path(name) if Path(name).suffix == ".yaml" else EVALS / "batteries" / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in sorted((EVALS / "batteries").glob("*.yaml"))]
        there = f"; there are: {', '.join(known)}"
        raise RecipeError(f"{path}: no such battery{there}{did_you_mean(str(name), known)}")
    return path


def _folders(battery: Battery) -> list[Path]:
    folders = [EVALS / name for name in battery.task_folders]
    for folder in folders:
        if not folder.is_dir():
            raise RecipeError(f"battery {battery.name}: task_folders: {folder} is not a folder")
    return folders


class _Loader(yaml.SafeLoader):
    """YAML in which `!function module.name` stays text and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f"repeated key {key.value!r}", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    assert isinstance(node, yaml.ScalarNode)
    return str(loader.construct_scalar(node))


_Loader.add_constructor("!function", _function)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{path}{line}: not sound YAML: {error.problem}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: holds {type(content).__name__}, not a mapping of keys to values")
    return content
