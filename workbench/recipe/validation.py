"""Plain data against a pydantic model: every fault of a file at once, in the words of the recipe.

Pydantic finds what is wrong; the words come from the grammar (what is allowed at this key) and from the
document (what was found there, and where). A misspelt key counts as the key it most likely meant once
it has been reported, so that one typing mistake does not hide the faults behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from workbench.recipe.document import Document, KeyPath
from workbench.recipe.grammar import Grammar, choice, grammar_of, meant, nearest

Value = TypeVar("Value")
Model = TypeVar("Model", bound=BaseModel)

_LONGEST_FOUND = 60
_LONGEST_KEY_LIST = 12
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{16,}"
    r"|sk-(proj-|svcacct-|ant-[a-z0-9]+-)?[A-Za-z0-9_]{16,}|gh[pousr]_[A-Za-z0-9]{30,})"
)
_SECRET_KEY = re.compile(r"(^|[_-])(token|api[_-]?key|password|secret|credentials?)$", re.IGNORECASE)
_ENVIRONMENT = "secrets do not belong in a recipe; remove it and set it in the environment, such as HF_TOKEN"


def parsed(adapter: TypeAdapter[Value], data: Any) -> Value:
    """Data as an instance of a type of the schema.

    JSON mode, because there a list may be a tuple while `"8"`, `yes` and `true` are still no numbers.

    Raises:
        ValidationError: pydantic's, with all the errors.
    """
    return adapter.validate_json(json.dumps(data), strict=True)


def readable(adapter: TypeAdapter[Value], data: Any) -> Value | None:
    """The same, and None where it is not valid, which is reported elsewhere."""
    try:
        return parsed(adapter, data)
    except ValidationError:
        return None


def validate(document: Document, model: type[Model]) -> Model | None:
    """The document's data as an instance of the model; None where its values are not valid.

    Faults are added to the document. Misspelt keys are renamed in it, other unknown ones removed.
    """
    grammar = grammar_of(model)
    for path, text in _texts(document.data, ()):
        if _SECRET.search(text) and not _SECRET_KEY.search(str(path[-1])):
            document.fault(path, f"this looks like an access token; {_ENVIRONMENT}")
    while True:
        try:
            return parsed(TypeAdapter(model), document.data)
        except ValidationError as error:
            errors = [
                (grammar.path(document.data, each["loc"]), each) for each in error.errors(include_url=False)
            ]
        repairs = [_repaired(document, grammar, path, each) for path, each in errors]
        if not any(repairs):
            break
    found: dict[KeyPath, str] = {}
    for path, each in errors:
        key, message = _fault(document.data, grammar, path, each)
        found.setdefault(key, message)
    for path, message in found.items():
        # A union reports its other branches too; the branch that got furthest says what is wrong.
        if not any(other != path and other[: len(path)] == path for other in found):
            document.fault(path, message)
    return None


def report(document: Document, model: type[BaseModel]) -> str:
    """The document's faults, one line each, in the order of the file, those of overrides last."""
    grammar = grammar_of(model)
    lines = []
    for fault in sorted(document.faults, key=lambda fault: (fault.mark.line == 0, fault.mark)):
        key = grammar.label(document.data, fault.path)
        line = _redacted(f"{fault.mark}  {key}{': ' if key else ''}{fault.message}")
        # Names are the user's: a line break or a terminal escape in one is shown, not obeyed.
        lines.append("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line))
    return "\n".join(dict.fromkeys(lines))


def shown(value: Any) -> str:
    """A value as a message quotes it: short, on one line, without secrets."""
    if value is None:
        return "nothing"
    text = _redacted(json.dumps(value, ensure_ascii=False))
    if len(text) <= _LONGEST_FOUND:
        return text
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'section'} of {len(value)}"
    return f'{text[: _LONGEST_FOUND - 4]}..."'


def unknown(key: str, known: list[str]) -> str:
    """Message for a key that a section does not have."""
    if _SECRET_KEY.search(key):
        return f"unknown key; {_ENVIRONMENT}"
    near = nearest(key, known)
    if near is None:
        return f"unknown key; valid keys: {', '.join(known)}"
    short = len(known) <= _LONGEST_KEY_LIST
    return f"unknown key;{meant(near)}" + (f" valid keys: {', '.join(known)}" if short else "")


def _repaired(document: Document, grammar: Grammar, path: KeyPath, error: ErrorDetails) -> bool:
    """Report an unknown key or tag, and change the document as if it were right; False if it is neither."""
    if error["type"] == "extra_forbidden":
        key, known = str(path[-1]), grammar.keys(document.data, path[:-1])
        document.fault(path, unknown(key, known))
        near = nearest(key, known)
        if near and near not in document.get(path[:-1]):
            document.rename(path, near)
        else:
            document.remove(path)
        return True
    if error["type"] == "union_tag_invalid":
        path, message = _fault(document.data, grammar, path, error)
        found = document.get(path)
        near = nearest(found, _tags(grammar, document.data, path[:-1])[1]) if isinstance(found, str) else None
        if near:
            document.fault(path, message)
            document.put(path, near, document.mark(path))
            return True
    return False


def _fault(data: Any, grammar: Grammar, path: KeyPath, error: ErrorDetails) -> tuple[KeyPath, str]:
    """Where an error of pydantic belongs, and what it says in the words of the recipe."""
    kind = error["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name, tags = _tags(grammar, data, path)
        path = (*path, name)
        found = grammar.at(data, path)[1]
        if found is None:
            return path, f"missing; needed: {choice(tags)}"
        near = nearest(found, tags) if isinstance(found, str) else None
        return path, f"found {shown(found)};{meant(near)} allowed: {choice(tags)}"
    if kind == "value_error":
        return path, str(error["ctx"]["error"])
    node, value = grammar.at(data, path)
    if error["loc"][-1:] == ("[key]",):
        return path, f"not a valid key; allowed: {grammar.key_words(data, path[:-1])}"
    if node is None:
        return path, f"found {shown(value)}; {error['msg']}"
    allowed = grammar.words(node)
    if kind == "missing":
        about = f" ({node['description']})" if "description" in node else ""
        return path, f"missing; needed: {allowed}{about}"
    near = nearest(value, _strings(grammar, node)) if isinstance(value, str) else None
    quote = "; put quotes around it" if kind == "string_type" and isinstance(value, int | float) else ""
    return path, f"found {shown(value)};{meant(near)} allowed: {allowed}{quote}"


def _tags(grammar: Grammar, data: Any, path: KeyPath) -> tuple[str, list[str]]:
    """Key and values that tell the branches of the union at the path apart."""
    node = grammar.at(data, path)[0]
    assert node is not None, "a tagged union is part of the schema"
    of = next(branch["discriminator"] for branch in grammar.branches(node) if "discriminator" in branch)
    return of["propertyName"], list(of["mapping"])


def _strings(grammar: Grammar, node: dict[str, Any]) -> list[str]:
    """The literal texts that are allowed at a node."""
    values = (branch.get("enum", [branch.get("const")]) for branch in grammar.branches(node))
    return [value for value in chain.from_iterable(values) if isinstance(value, str)]


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(each, (*path, key))


def _redacted(text: str) -> str:
    return _SECRET.sub(lambda secret: secret[0][:3] + "...", text)
