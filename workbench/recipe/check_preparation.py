"""What must hold between the preparations of a recipe, their sources and those that read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from workbench.recipe.document import KeyPath, dig
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.inputs import ASSISTANTS
from workbench.recipe.naming import Said
from workbench.recipe.preparation import Preparation, Where
from workbench.recipe.validation import readable

Faults = Iterator[tuple[KeyPath, str]]
_PREPARATION, _WHERE = TypeAdapter(Preparation), TypeAdapter(Where)


def check(data: dict[str, Any]) -> Said:
    """What is wrong with what is prepared and with who reads it, as key paths and messages."""
    sources, raw = _mapping(data.get("data")), _mapping(data.get("prepare"))
    sections = {name: section for name, value in raw.items() if (section := readable(_PREPARATION, value))}
    said: Said = []
    for name, section in sections.items():
        said += _texts(name, section, sources)
        if section.decontaminate and "evaluate" not in data:
            message = "there is no evaluate, so there are no questions to look for; add it or leave this out"
            said.append((("prepare", name, "decontaminate"), message))
    for name, source in sources.items():
        if isinstance(source, dict) and isinstance(source.get("prepared"), str):
            said += _reader(name, source, raw, sections)
    return said + _circles(sources, sections)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(name: str, section: Preparation, sources: dict[str, Any]) -> Faults:
    """Every source that a preparation names is there, named once, and plain text."""
    named: list[tuple[KeyPath, str]] = [(("sources", i), source) for i, source in enumerate(section.sources)]
    for key, labels in (("language", section.language), ("topic", section.topic)):
        seeds = labels.seeds if labels else {}
        named += [((key, "seeds", label), source) for label, source in seeds.items()]
    if section.quality:
        named.append((("quality", "reference"), section.quality.reference))
    for path, source in named:
        where = ("prepare", name, *path)
        if source not in sources:
            there = ", ".join(sources) or "none"
            yield where, f'no source "{source}" in data;{meant(nearest(source, sources))} there are: {there}'
        elif (
            any(dig(sources, (source, key)) is not None for key in ("chat", "requests", "moderation"))
            or dig(sources, (source, "miniworld")) in ASSISTANTS
        ):
            yield where, f"{source} has exchanges, but a preparation knows no chat template; name plain text"
    if repeated := sorted({source for source in section.sources if section.sources.count(source) > 1}):
        yield ("prepare", name, "sources"), f"names {', '.join(repeated)} more than once"


def _reader(
    name: str, source: dict[str, Any], raw: dict[str, Any], sections: dict[str, Preparation]
) -> Faults:
    """A source reads a preparation that there is, and asks for tags that it has."""
    prepared, path = source["prepared"], ("data", name)
    if prepared not in raw:
        there = ", ".join(raw) or "none"
        yield (
            (*path, "prepared"),
            f'no preparation "{prepared}" in prepare;{meant(nearest(prepared, raw))} there are: {there}',
        )
    where, section = readable(_WHERE, source.get("where")), sections.get(prepared)
    if where is None or section is None:
        return
    for key, wanted, labels in (
        ("language", where.language, section.language),
        ("topic", where.topic, section.topic),
    ):
        if wanted is not None and labels is None:
            yield (*path, "where", key), f"prepare.{prepared} tags no {key}; give it {key}: {{seeds: ...}}"
        elif wanted is not None and labels is not None and wanted not in labels.seeds:
            near = meant(nearest(wanted, labels.seeds))
            yield (
                (*path, "where", key),
                f'prepare.{prepared} knows no {key} "{wanted}";{near} there are: {", ".join(labels.seeds)}',
            )
    if where.best is not None and section.quality is None:
        yield (
            (*path, "where", "best"),
            f"prepare.{prepared} scores no quality; give it quality: {{reference: ...}}",
        )


def _circles(sources: dict[str, Any], sections: dict[str, Preparation]) -> Said:
    """No preparation reads, by way of its sources, what it makes itself."""
    said: Said = []
    for name in sections:
        reached, edge = set[str](), _reads(name, sources, sections)
        while edge:
            reached |= edge
            edge = {other for each in edge for other in _reads(each, sources, sections)} - reached
        if name in reached:
            message = "reads what it makes itself, by way of its sources; take out what closes the circle"
            said.append((("prepare", name, "sources"), message))
    return said


def _reads(name: str, sources: dict[str, Any], sections: dict[str, Preparation]) -> set[str]:
    """The preparations whose text a preparation reads, also by way of the snippets of synthetic text."""
    named = sections[name].texts if name in sections else set()
    edge = named
    while edge:
        snippets = {dig(sources, (source, "synthetic", "snippets")) for source in edge}
        edge = {source for source in snippets if isinstance(source, str)} - named
        named = named | edge
    prepared = {dig(sources, (source, "prepared")) for source in named}
    return {name for name in prepared if isinstance(name, str)}
