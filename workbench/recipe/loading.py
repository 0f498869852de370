"""From a file to a checked recipe: read, override, validate, check, and report all faults together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from workbench.errors import RecipeError
from workbench.recipe import overrides as overriding
from workbench.recipe.check import check
from workbench.recipe.document import Document, dump, parse
from workbench.recipe.grammar import grammar_of, nearest
from workbench.recipe.schema import Recipe
from workbench.recipe.validation import report, shown, validate

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Loaded:
    """A checked recipe.

    Attributes:
        text: resolved recipe as YAML, defaults included, in the order of the schema; `load` reads it back.
        digest: SHA-256 of the resolved settings, in hexadecimal; comments, layout and key order do not count.
        overrides: the overrides that it was loaded with.
    """

    recipe: Recipe
    text: str
    digest: str
    overrides: tuple[str, ...]


def load(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe file, apply `key=value` overrides, and check all of it.

    Raises:
        RecipeError: with every fault on a line of its own: place, key, what was found, what is allowed.
    """
    document = _open(path, Recipe)
    overriding.apply(document, overrides, Recipe)
    recipe = validate(document, Recipe)
    for at, message in check(document.data):
        document.fault(at, message)
    if recipe is None or document.faults:
        raise RecipeError(report(document, Recipe))
    return resolved(recipe, overrides)


def read(path: Path, model: type[Model]) -> Model:
    """Read another YAML file into a pydantic model, with the rules and messages of recipes.

    Raises:
        RecipeError: as in `load`.
    """
    document = _open(path, model)
    result = validate(document, model)
    if result is None or document.faults:
        raise RecipeError(report(document, model))
    return result


def resolved(recipe: Recipe, overrides: Sequence[str] = ()) -> Loaded:
    """A recipe with its text and digest; a null setting is left out, as null and absent mean the same."""
    settings = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    # What a stage is comes before its settings, which the schema cannot order so: they are inherited.
    settings["stages"] = [
        {key: stage[key] for key in ("kind", "name", "from") if key in stage} | stage
        for stage in settings["stages"]
    ]
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return Loaded(recipe, dump(settings), hashlib.sha256(canonical.encode()).hexdigest(), tuple(overrides))


def json_schema() -> dict[str, Any]:
    """JSON schema of recipes for editors, as kept in `recipes/recipe.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _open(path: Path, model: type[BaseModel]) -> Document:
    """Parse a file that must hold one mapping.

    Raises:
        RecipeError: the file cannot be read, is not UTF-8, not YAML, or something else than a mapping.
    """
    origin = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        near = nearest(path.name, [file.name for file in path.parent.glob("*.yaml")])
        raise RecipeError(f"{origin}: no such file" + (f"; did you mean {near}?" if near else "")) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise RecipeError(
            f"{origin}:{line}  byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from error
    except OSError as error:
        raise RecipeError(f"{origin}: cannot be read: {error.strerror}") from error
    document = parse(text, origin)
    if not isinstance(document.data, dict):
        keys = ", ".join(grammar_of(model).keys({}, ()))
        found = "the file is empty" if document.data is None else f"found {shown(document.data)}"
        raise RecipeError(f"{origin}:1:1  {found}; needed: a mapping with the keys {keys}")
    return document
