"""Overrides from the command line, such as `stages.cpt.tokens=1e9`, written into a document.

Values follow the rules of YAML. A list item goes by its position; a stage also by its name or kind. What
an override writes is checked like the file, and its faults point at the override.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from workbench.errors import RecipeError
from workbench.recipe.document import Document, Fault, KeyPath, Mark, below, parse
from workbench.recipe.grammar import Grammar, Node, free, grammar_of, meant, nearest
from workbench.recipe.validation import unknown


class _Refused(Exception):
    """Why an override cannot be written."""


def apply(document: Document, overrides: Sequence[str], model: type[BaseModel]) -> None:
    """Write overrides into the document, in their order; later ones win. Faults go to the document."""
    grammar = grammar_of(model)
    for override in overrides:
        key, equals, text = override.partition("=")
        mark = Mark.override(key.strip())
        if not equals or not key.strip():
            document.faults.append(Fault(mark, (), "an override is written key=value, such as seed=2"))
            continue
        try:
            path = _resolve(document, grammar, key.strip().split("."))
            value = parse(text, key)
        except _Refused as error:
            document.faults.append(Fault(mark, (), str(error)))
            continue
        except RecipeError as error:
            # Its place counts lines and columns of the value, which is one word of a command line.
            document.faults.append(Fault(mark, (), str(error).partition("  ")[2]))
            continue
        document.faults += [Fault(mark, path, fault.message) for fault in value.faults]
        for size in range(1, len(path)):
            if document.get(path[:size]) is None:
                document.put(path[:size], {}, mark)
        document.put(path, value.data, mark)


def _resolve(document: Document, grammar: Grammar, keys: list[str]) -> KeyPath:
    """Key path that the dotted key means.

    Raises:
        _Refused: the schema knows no such key, or it fits several stages or none.
    """
    path: KeyPath = ()
    while keys:
        node, value = grammar.at(document.data, path)
        section = grammar.section(node, {} if value is None else value)
        at = grammar.label(document.data, path)
        if section is None and isinstance(value, dict):
            raise _Refused(f"{at} has no valid kind, so its keys are not known; set its kind first")
        if section is None:
            raise _Refused(f"{at} is a value, not a section; write {'.'.join(map(str, path))}=... to set it")
        if section["type"] == "array":
            names = [_name(grammar.section(section.get("items"), item), item) for item in value or ()]
            path, keys = (*path, _index(value or [], names, keys[0], at)), keys[1:]
        elif keys[0] in section.get("properties", ()):
            path, keys = (*path, keys[0]), keys[1:]
        elif (values := free(section)) is not None:
            size = _name_length(value or {}, keys, closed=grammar.section(values, {}) is None)
            path, keys = (*path, ".".join(keys[:size])), keys[size:]
        else:
            raise _Refused(unknown(keys[0], list(section.get("properties", ()))))
    return path


def _name_length(section: dict[str, Any], keys: list[str], *, closed: bool) -> int:
    """How many dotted parts make up a name that the user chose, as names may hold dots themselves."""
    if closed:
        return len(keys)
    return next((size for size in range(len(keys), 0, -1) if ".".join(keys[:size]) in section), 1)


def _name(section: Node | None, item: Any) -> str | None:
    """Name that a list item goes by: its own, or the default of its kind."""
    if section is None or not isinstance(item, dict):
        return None
    name = item.get("name", section.get("properties", {}).get("name", {}).get("default"))
    return None if name is None else str(name)


def _index(items: list[Any], names: list[str | None], key: str, at: str) -> int:
    """Position of a list item given by its number, or of a section given by its name or kind."""
    if key.isdecimal():
        if int(key) < len(items):
            return int(key)
        raise _Refused(f"{at} has {len(items)} items, numbered from 0; there is no {key}")
    for given in (names, [below(item, "kind") for item in items]):
        if given.count(key) == 1:
            return given.index(key)
        if given.count(key) > 1:
            places = " or ".join(str(index) for index, name in enumerate(given) if name == key)
            raise _Refused(f"{key} is the name or kind of several items of {at}; give the position: {places}")
    known = [name for name in names if name is not None]
    hint = meant(nearest(key, known))
    raise _Refused(f"{at} has no item {key};{hint} items: {', '.join(known) or 'none'}")
