"""What must hold between text that a model writes, its snippets, its writer and the stages that read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from workbench.recipe.document import KeyPath, dig
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.naming import Said, Variant
from workbench.recipe.preparation import Generated

SNIPPET = "{snippet}"
LONGEST: int = Generated.model_fields["max_new_tokens"].default  # that of Synthetic too
_NAMED = ("texts", "alignment")  # sections of a stage whose values are sources


def check(data: dict[str, Any], made: list[Variant], *, certain: bool) -> Said:
    """What is wrong with the synthetic and generated sources of a recipe, as key paths and messages.

    Args:
        data: the recipe as plain data.
        made: its variants, as far as they are known.
        certain: whether they are all known.
    """
    declared = data.get("data", {})
    if not isinstance(declared, dict):
        return []
    said: Said = []
    paths: list[KeyPath] = [("data", name, kind) for name in declared for kind in ("synthetic", "generated")]
    for path in paths:
        section, name = dig(data, path), str(path[1])
        if not isinstance(section, dict):
            continue
        if path[-1] == "synthetic":
            said += _snippets(data, name, section, path)
            said += _prompt(section, path)
        said += _endpoint(section, path)
        said += _variant(data, name, section, made if certain else None, path)
        said += _room(data, section, made, path)
    return said


def _snippets(data: dict[str, Any], name: str, section: dict[str, Any], path: KeyPath) -> Said:
    """Snippets are text that is there before anything is written from it."""
    declared, snippets = data["data"], section.get("snippets")
    if not isinstance(snippets, str):
        return []
    if snippets not in declared:
        hint = meant(nearest(snippets, declared))
        return [
            ((*path, "snippets"), f'no source "{snippets}" in data;{hint} there are: {", ".join(declared)}')
        ]
    if name in _read(data, snippets):
        return [((*path, "snippets"), f"{snippets} is written from {name} itself; name other text")]
    return []


def _prompt(section: dict[str, Any], path: KeyPath) -> Said:
    prompt = section.get("prompt", SNIPPET)
    if not isinstance(prompt, str) or prompt.count(SNIPPET) == 1:
        return []
    return [
        ((*path, "prompt"), f"needs {SNIPPET} once, where the snippet goes; found {prompt.count(SNIPPET)}")
    ]


def _endpoint(section: dict[str, Any], path: KeyPath) -> Said:
    """A key or a password in the URL would end up in the run folder."""
    url = dig(section, ("writer", "endpoint"))
    if not isinstance(url, str):
        return []
    here: KeyPath = (*path, "writer", "endpoint")
    try:
        parts = urlsplit(url)
    except ValueError:
        return [(here, "not a URL; write the base URL of the server, such as http://localhost:8000/v1")]
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return [(here, "not a URL; write the base URL of the server, such as http://localhost:8000/v1")]
    if parts.username or parts.password or parts.query or parts.fragment:
        return [(here, "only scheme, host and path belong here; the key is read from OPENAI_API_KEY")]
    return []


def _variant(
    data: dict[str, Any], name: str, section: dict[str, Any], made: list[Variant] | None, path: KeyPath
) -> Said:
    """A variant writes after it was made, for stages that come later."""
    variant = dig(section, ("writer", "variant"))
    if made is None or not isinstance(variant, str):
        return []
    here: KeyPath = (*path, "writer", "variant")
    writer = next((each for each in made if each.name == variant), None)
    if writer is None:
        names = [each.name for each in made]
        return [
            (here, f'no variant "{variant}";{meant(nearest(variant, names))} there are: {", ".join(names)}')
        ]
    readers = dig(data, ("model", "new", "tokenizer_sources"))
    if any(name in _read(data, source) for source in (readers if isinstance(readers, list) else ())):
        return [
            (here, f"the tokenizer is trained on {name}, before {variant} is made; name other text there")
        ]
    stages = data.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if index <= writer.stage_index and any(name in _read(data, each) for each in _mentioned(stage)):
            return [(here, f"stages[{index}] reads {name} before {variant} is made; use it in a later stage")]
    return []


def _room(data: dict[str, Any], section: dict[str, Any], made: list[Variant], path: KeyPath) -> Said:
    """What a new model writes fits into its context, behind one token at least."""
    context = dig(data, ("model", "new", "context"))
    longest = section.get("max_new_tokens", LONGEST)
    by_name = {variant.name: variant for variant in made}
    writer = by_name.get(str(dig(section, ("writer", "variant"))))
    while writer is not None and writer.parent in by_name:
        writer = by_name[writer.parent]
    if writer is None or writer.kind != "pretrain" or not isinstance(context, int | float):
        return []
    if not isinstance(longest, int | float) or longest < context:
        return []
    message = f"{longest} leaves no room in model.new.context, which is {context}; lower it"
    return [((*path, "max_new_tokens"), message)]


def _mentioned(value: Any, key: str = "") -> Iterator[str]:
    """Sources that a stage names: in its mixtures, its held-out texts, its parallel text, its sources."""
    if isinstance(value, dict):
        if key == "mixture":
            yield from (name for name in value if isinstance(name, str))
        if key in _NAMED:
            yield from (name for name in value.values() if isinstance(name, str))
        for inner, each in value.items():
            yield from _mentioned(each, str(inner))
    elif isinstance(value, list):
        for each in value:
            if key == "sources" and isinstance(each, str):
                yield each
            yield from _mentioned(each)


def _read(data: dict[str, Any], name: str) -> set[str]:
    """A source with all that it is made from."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        source = waiting.pop()
        if source in found:
            continue
        found.add(source)
        snippets = dig(data, ("data", source, "synthetic", "snippets"))
        waiting += [snippets] if isinstance(snippets, str) else []
        preparation = dig(data, ("data", source, "prepared"))
        if isinstance(preparation, str):
            waiting += _mentioned(dig(data, ("prepare", preparation)))
    return found
