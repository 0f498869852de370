"""What a recipe may hold at each key, read off the JSON schema that pydantic derives from the classes.

A node is one JSON schema object. Walking data and schema side by side answers the questions that an
error message asks: which keys are valid here, and which values are allowed, in words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel

from workbench.recipe.document import KeyPath, below

Node = dict[str, Any]

PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a name of letters, digits, '.', '_' and '-', a letter or digit first",
    r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$": (
        "a name of lower-case letters, digits, '.', '_' and '-', with '/' between folders"
    ),
    r"^[0-9a-f]{40}$": "a commit of 40 hexadecimal digits",
}


class Grammar:
    """The JSON schema of one pydantic model."""

    def __init__(self, model: type[BaseModel]) -> None:
        """Derive the schema from the model."""
        self.root: Node = model.model_json_schema()

    def branches(self, node: Node) -> list[Node]:
        """The alternatives at a node, references followed, null left out."""
        while "$ref" in node:
            node = self.root["$defs"][node["$ref"].rpartition("/")[2]]
        choices = node.get("anyOf") or ([] if "discriminator" in node else node.get("oneOf"))
        if not choices:
            return [] if node.get("type") == "null" else [node]
        return [branch for choice in choices for branch in self.branches(choice)]

    def tag(self, node: Node | None, value: Any) -> str | None:
        """The valid tag that a value carries, where the node is a union told apart by tags."""
        for branch in self.branches(node) if node is not None and isinstance(value, dict) else ():
            if "discriminator" in branch:
                tag = value.get(branch["discriminator"]["propertyName"])
                return tag if isinstance(tag, str) and tag in branch["discriminator"]["mapping"] else None
        return None

    def section(self, node: Node | None, value: Any) -> Node | None:
        """The branch that describes the value's keys or items, if its kind of value has any."""
        wanted = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else None
        for branch in self.branches(node) if node is not None else ():
            if "discriminator" in branch:
                tag = self.tag(branch, value)
                return self.section({"$ref": branch["discriminator"]["mapping"][tag]}, value) if tag else None
            if branch.get("type") == wanted:
                return branch
        return None

    def child(self, section: Node | None, key: str | int) -> Node | None:
        """Node below a section at a key or index; None where the schema knows no such key."""
        if section is None:
            return None
        if isinstance(key, int):
            places = section.get("prefixItems", ())
            item: Node | None = places[key] if 0 <= key < len(places) else section.get("items")
            return item
        known: Node | None = section.get("properties", {}).get(key)
        return free(section) if known is None else known

    def steps(self, data: Any, path: KeyPath) -> Iterator[tuple[Node | None, Any]]:
        """Node and value of the root and of each prefix of the path."""
        node: Node | None = self.root
        yield node, data
        for key in path:
            node = self.child(self.section(node, data), key)
            data = below(data, key)
            yield node, data

    def at(self, data: Any, path: KeyPath) -> tuple[Node | None, Any]:
        """Node and value at the end of the path; None for either that there is not."""
        *_, last = self.steps(data, path)
        return last

    def keys(self, data: Any, path: KeyPath) -> list[str]:
        """Valid keys of the section at the path."""
        section = self.section(*self.at(data, path))
        return list(section.get("properties", ())) if section else []

    def path(self, data: Any, location: Iterable[str | int]) -> KeyPath:
        """Key path of a pydantic error: its location less the tags and the names of union branches."""
        path: KeyPath = ()
        tag = None
        for key in location:
            node, value = self.at(data, path)
            if tag is not None and key == tag:
                tag = None
                continue
            known = self.child(self.section(node, value), key) is not None
            if (
                isinstance(value, list)
                if isinstance(key, int)
                else isinstance(value, dict) and (key in value or known)
            ):
                path = (*path, key)
                tag = self.tag(*self.at(data, path))
        return path

    def label(self, data: Any, path: KeyPath) -> str:
        """Key path as people write it, with a stage's kind behind its index: `stages[1].quantize.bits`."""
        shown = ""
        for key, (node, value) in zip(("", *path), self.steps(data, path), strict=True):
            if isinstance(key, int):
                tag = self.tag(node, value)
                shown += f"[{key}]" + (f".{tag}" if tag else "")
            else:
                shown += ("." if shown else "") + key
        return shown

    def words(self, node: Node) -> str:
        """Allowed values of a node in words: `a whole number above 0, or "channel"`."""
        return ", or ".join(self._words(branch) for branch in self.branches(node))

    def key_words(self, data: Any, path: KeyPath) -> str:
        """Allowed keys, in words, of the mapping at the path."""
        section = self.section(*self.at(data, path)) or {}
        key: Node = {"type": "string", **section.get("propertyNames", {})}
        key |= (
            {"pattern": pattern}
            if (pattern := next(iter(section.get("patternProperties", ())), None))
            else {}
        )
        return self.words(key)

    def _words(self, node: Node) -> str:
        if "const" in node or "enum" in node:
            return choice(node.get("enum", [node.get("const")]))
        if "discriminator" in node:
            of = node["discriminator"]
            return f"a section with {of['propertyName']}: {choice(of['mapping'])}"
        at_least_one = " of at least one" if node.get("minItems") or node.get("minProperties") else ""
        match node["type"]:
            case "integer":
                return "a whole number" + _bounds(node)
            case "number":
                return "a number" + _bounds(node)
            case "boolean":
                return "true or false"
            case "string":
                longest = f", at most {node['maxLength']} characters" if "maxLength" in node else ""
                return _form(node.get("pattern")) + longest
            case "array" if "prefixItems" in node:
                return "a list of " + " and ".join(map(self.words, node["prefixItems"]))
            case "array":
                return f"a list{at_least_one}, each {self.words(node['items'])}"
        if (values := free(node)) is not None:
            return f"a section of names{at_least_one}, each with {self.words(values)}"
        return f"a section with the keys {', '.join(node.get('properties', ()))}"


@cache
def grammar_of(model: type[BaseModel]) -> Grammar:
    """Grammar of a model, derived once."""
    return Grammar(model)


def free(section: Node) -> Node | None:
    """Node of the values of a mapping whose keys the user chooses; None for any other section."""
    for node in (*section.get("patternProperties", {}).values(), section.get("additionalProperties")):
        if isinstance(node, dict):
            return node
    return None


def choice(values: Iterable[Any]) -> str:
    """Values as YAML writes them: `"rtn" or "gptq"`."""
    *most, last = [json.dumps(value, ensure_ascii=False) for value in values]
    return f"{', '.join(most)} or {last}" if most else last


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that a misspelt one most likely meant."""
    return next(iter(get_close_matches(key.lower(), list(known), n=1)), None)


def meant(near: str | None) -> str:
    """The question that follows a semicolon in a message."""
    return f" did you mean {near}?" if near else ""


def _form(pattern: str | None) -> str:
    return "text" if pattern is None else PATTERNS.get(pattern, f"text that matches {pattern}")


def _bounds(node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    words = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
    }
    said = [f"{word} {node[key]}" for key, word in words.items() if key in node]
    return f" {' and '.join(said)}" if said else ""
