"""YAML text to plain data, with the line and column of every key, and back.

YAML is read more narrowly than its specification: what a reader could misunderstand is refused
(duplicate keys, tabs, anchors, tags, merge keys) or stays text (`no`, `010`, `12:30`, dates), and what
looks like a number is one (`1e-5`, `1e9`, `1_000`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, cast

import yaml

from workbench.errors import RecipeError

KeyPath = tuple[str | int, ...]

_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*(_[0-9]+)*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9_]+")
# The largest float has 309 digits; longer text is no number that a recipe could mean.
_LONGEST_NUMBER = 400
_DEEPEST = 32


@dataclass(frozen=True, order=True)
class Mark:
    """Where something was written: a place in a file, or an override (`set: a.b`, line 0)."""

    line: int
    column: int
    origin: str

    def __str__(self) -> str:
        """The place as editors jump to it."""
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin

    @classmethod
    def override(cls, key: str) -> Mark:
        """Mark of a command-line override."""
        return cls(0, 0, f"set: {key}")


@dataclass(frozen=True)
class Fault:
    """Something wrong with a document: where, at which key, and what would be right."""

    mark: Mark
    path: KeyPath
    message: str


@dataclass
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and the mark of every key path in it."""

    data: Any
    marks: dict[KeyPath, Mark]
    faults: list[Fault] = field(default_factory=list)

    def mark(self, path: KeyPath) -> Mark:
        """Mark of the path, or of the nearest section around it."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def get(self, path: KeyPath) -> Any:
        """Value at the path; None where it leads nowhere."""
        return dig(self.data, path)

    def fault(self, path: KeyPath, message: str) -> None:
        """Note a fault at the path."""
        self.faults.append(Fault(self.mark(path), path, message))

    def put(self, path: KeyPath, value: Any, mark: Mark) -> None:
        """Write a value whose parent exists; every mark below the path becomes this one."""
        self.get(path[:-1])[path[-1]] = value
        self.marks = {key: old for key, old in self.marks.items() if key[: len(path)] != path}
        self.marks[path] = mark

    def rename(self, path: KeyPath, key: str) -> None:
        """Give the value at the path another key in the same section; marks move along."""
        section, new = self.get(path[:-1]), (*path[:-1], key)
        section[key] = section.pop(path[-1])
        size = len(path)
        self.marks = {(new + at[size:] if at[:size] == path else at): mark for at, mark in self.marks.items()}

    def remove(self, path: KeyPath) -> None:
        """Drop the value at the path."""
        del self.get(path[:-1])[path[-1]]


def below(value: Any, key: str | int) -> Any:
    """Value of a section at a key or of a list at an index; None where there is none."""
    if isinstance(value, dict):
        return value.get(key)
    return value[key] if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value) else None


def dig(data: Any, path: KeyPath) -> Any:
    """Value at a key path; None where it leads nowhere."""
    return reduce(below, path, data)


def scalar(text: str) -> str | int | float | bool | None:
    """Value of an unquoted YAML scalar: null, true, false, a finite decimal number, or the text itself."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        if _INTEGER.fullmatch(text):
            return int(text)
        number = float(text)
        return number if math.isfinite(number) else text
    return text


def parse(text: str, origin: str) -> Document:
    """Read one YAML document.

    Raises:
        RecipeError: the text is not YAML at all; what is merely not allowed is in `.faults`.
    """
    tabs = [
        f"{Mark(number, len(line) - len(line.lstrip(' ')) + 1, origin)}  a tab indents this line; use spaces"
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and "\t" in line[: len(line) - len(line.lstrip())]
    ]
    if tabs:
        raise RecipeError("\n".join(tabs))
    reader = _Reader(origin, iter(yaml.parse(text, Loader=yaml.SafeLoader)))
    try:
        return reader.document()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, error.position - before.rfind("\n"), origin)
        raise RecipeError(f"{mark}  a control character is not allowed in YAML; remove it") from error
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(at.line + 1, at.column + 1, origin) if at else Mark(1, 1, origin)
        what = "; ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(f"{mark}  not readable as YAML: {what}") from error


class _Reader:
    """Recursive descent over the parser's events; events still know anchors, tags and quotes."""

    def __init__(self, origin: str, events: Iterator[Any]) -> None:
        self.origin, self.events = origin, events
        self.marks: dict[KeyPath, Mark] = {(): Mark(1, 1, origin)}
        self.faults: list[Fault] = []

    def document(self) -> Document:
        data = None
        if isinstance(self.next(yaml.StreamStartEvent), yaml.DocumentStartEvent):
            data = self.value(next(self.events), ())
            next(self.events)
            if isinstance(event := next(self.events), yaml.DocumentStartEvent):
                raise RecipeError(f"{self.at(event)}  a second document begins here; one file is one recipe")
        return Document(data, self.marks, self.faults)

    def next(self, skipped: type[yaml.Event]) -> Any:
        event = next(self.events)
        return next(self.events) if isinstance(event, skipped) else event

    def at(self, event: Any) -> Mark:
        return Mark(event.start_mark.line + 1, event.start_mark.column + 1, self.origin)

    def refuse(self, event: Any, path: KeyPath, message: str) -> None:
        self.faults.append(Fault(self.at(event), path, message))

    def value(self, event: Any, path: KeyPath) -> Any:
        if len(path) > _DEEPEST:
            raise RecipeError(f"{self.at(event)}  nested more than {_DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self.refuse(event, path, f"alias *{event.anchor} is not allowed; write the value out")
        if event.anchor is not None:
            self.refuse(
                event, path, f"anchor &{event.anchor} is not allowed; write the value out where it is used"
            )
        if event.tag is not None:
            self.refuse(event, path, f"tag {event.tag} is not allowed; write plain YAML")
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return scalar(event.value) if event.implicit[0] else self.text(event, path)

    def text(self, event: Any, path: KeyPath) -> str:
        # Escapes in double quotes can name what no UTF-8 file holds.
        if re.search("[\ud800-\udfff\0]", event.value):
            self.refuse(event, path, "holds a NUL or half a surrogate pair; remove the escape")
            return ""
        return cast(str, event.value)

    def sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            self.marks.setdefault((*path, len(items)), self.at(event))
            items.append(self.value(event, (*path, len(items))))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Any]:
        section: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise RecipeError(f"{self.at(event)}  a key must be plain text")
            key = self.text(event, path)
            below = (*path, key)
            first = self.marks.setdefault(below, self.at(event))
            value = self.value(next(self.events), below)
            if key == "<<" and event.implicit[0]:
                self.refuse(event, path, "merge key << is not allowed; write the keys out")
            elif key in section:
                self.refuse(event, below, f"duplicate key; it stands at line {first.line} already")
            else:
                section[key] = value
        return section


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `scalar` or another YAML reader would take for something else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        # Equal objects are written out each time, as recipes know no anchors.
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # The emitter folds the rarer line breaks unless they are escaped, which double quotes do.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_NUMBER.pattern})$"), list("-+.0123456789")
)


def dump(data: Any) -> str:
    """Plain data as readable YAML in the order of its keys; `parse` reads the same data back."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
