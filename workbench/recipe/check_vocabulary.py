"""What must hold between a vocabulary stage and the rest of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.recipe.document import KeyPath, dig
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.naming import Said


def check_vocabulary(data: dict[str, Any]) -> Said:
    """Its sources exist, parallel text is of two sources, and tied embeddings begin in one way."""
    stages = data.get("stages")
    said: Said = []
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, dict) and stage.get("kind") == "vocabulary":
            said += _sources(data.get("data"), ("stages", index), stage)
            said += _twins(("stages", index, "alignment"), stage.get("alignment"))
            tied = dig(data, ("model", "new"))
            if stage.get("output") and isinstance(tied, dict) and tied.get("tie_embeddings", True):
                message = "model.new ties output and input embeddings: leave output out"
                said.append((("stages", index, "output"), message))
    return said


def _sources(declared: Any, path: KeyPath, stage: dict[str, Any]) -> Said:
    known = declared if isinstance(declared, dict) else {}
    return [
        (
            (*path, *keys),
            f'no source "{name}" in data;{meant(nearest(name, known))} there are: '
            f"{', '.join(known) or 'none'}",
        )
        for keys, name in _named(stage)
        if name not in known
    ]


def _named(stage: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    sources, alignment = stage.get("sources"), stage.get("alignment")
    for index, name in enumerate(sources if isinstance(sources, list) else ()):
        if isinstance(name, str):
            yield ("sources", index), name
    for key, name in alignment.items() if isinstance(alignment, dict) else ():
        if key in ("old", "new") and isinstance(name, str):
            yield ("alignment", key), name


def _twins(path: KeyPath, alignment: Any) -> Said:
    if not isinstance(alignment, dict) or alignment.get("old") != alignment.get("new"):
        return []
    return [((*path, "new"), "is the old text itself; name its translation")]
