"""What must hold between the safety stages of a recipe, its data and its variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter

from workbench.recipe.document import KeyPath
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.inputs import Source
from workbench.recipe.naming import Said, Variant, quantized
from workbench.recipe.safety import PATCHING, Guarded, Safety
from workbench.recipe.schema import Stage
from workbench.recipe.training import Sft
from workbench.recipe.validation import readable

_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)

Faults = Iterator[tuple[KeyPath, str]]


def check(
    data: dict[str, Any],
    stages: list[Stage | None],
    made: list[Variant],
    references: Iterable[tuple[KeyPath, str]],
    *,
    certain: bool,
) -> Said:
    """What is wrong with the safety of a recipe, as key paths and messages.

    Args:
        data: the recipe as plain values.
        stages: None stands for one that cannot be read.
        made: the variants.
        references: where sources are named, and which.
        certain: whether all variants are known.
    """
    declared = data.get("data", {})
    sources = {
        name: readable(_SOURCE, source)
        for name, source in (declared.items() if isinstance(declared, dict) else ())
    }
    said: Said = []
    for index, stage in enumerate(stages):
        if isinstance(stage, Sft | Safety):
            said += _exchanges(stage, index, sources)
        if certain:
            said += _named(stage, index, made)
            said += _judging(stage, index, made)
    if certain:
        said += _sifted(references, sources, made)
    return said + _patched(made) + _guarded(made)


def _exchanges(stage: Sft | Safety, index: int, sources: dict[str, Source | None]) -> Faults:
    """Fine-tuning has answers to learn; beside triplets nothing but exchanges is trained on."""
    known = {name: sources[name] for name in stage.mixture if sources.get(name)}
    texts = [name for name, source in known.items() if source and not source.exchanges]
    path: KeyPath = ("stages", index, "mixture")
    if isinstance(stage, Safety) and texts:
        yield path, f"{', '.join(texts)} is no source of exchanges; give it chat, or leave it to an sft stage"
    elif isinstance(stage, Sft) and len(texts) == len(stage.mixture):
        yield path, "has no source of exchanges, so there are no answers to learn; name one, or use cpt"
    if isinstance(stage, Safety) and (taken := sorted({"prefixed", "transitions"} & set(stage.mixture))):
        yield path, f"{', '.join(taken)}: derta calls its own rows so; give the source another name"
    for name, reading in stage.reading.items():
        if (source := known.get(name)) and source.exchanges and reading.order != "shuffled":
            where: KeyPath = ("stages", index, "reading", name, "order")
            yield where, f"exchanges are read shuffled, found {reading.order}; leave it out"


def _named(stage: Stage | None, index: int, made: list[Variant]) -> Faults:
    """Variants that judge, answer or write are made before."""
    named: list[tuple[KeyPath, str | None]] = []
    if isinstance(stage, Safety):
        triplets = stage.triplets
        path: KeyPath = ("stages", index, "triplets")
        named.append(((*path, "judge", "variant"), triplets.judge.variant))
        named.append(((*path, "target"), triplets.target))
        named.append(((*path, "chosen", "variant"), triplets.chosen.variant if triplets.chosen else None))
    if isinstance(stage, Guarded):
        named.append((("stages", index, "guard", "variant"), stage.guard.variant))
    before = [variant.name for variant in made if variant.stage_index < index]
    for where, name in named:
        if name is not None and name not in before:
            hint = meant(nearest(name, before))
            there = ", ".join(before) or "none"
            yield where, f'no variant "{name}" is made before;{hint} there are: {there}'


def _judging(stage: Stage | None, index: int, made: list[Variant]) -> Faults:
    """A judge that is quantized judges otherwise, and would be taken for a change of what it judges."""
    final = quantized(made)
    if isinstance(stage, Safety) and stage.triplets.judge.variant in final:
        path: KeyPath = ("stages", index, "triplets", "judge", "variant")
        yield path, f"{stage.triplets.judge.variant} is quantized; name the variant that it was made from"
    if isinstance(stage, Guarded) and stage.guard.variant in final:
        yield (
            ("stages", index, "guard", "variant"),
            f"{stage.guard.variant} is quantized; name the variant that it was made from",
        )


def _sifted(
    references: Iterable[tuple[KeyPath, str]], sources: dict[str, Source | None], made: list[Variant]
) -> Faults:
    """A guard that sifts stands before all that reads what it lets through."""
    named = list(references)
    guards = {variant.name: variant.stage_index for variant in made if variant.kind == "guard"}
    for name, source in sources.items():
        if source is None or source.sifted_by is None:
            continue
        place = guards.get(source.sifted_by)
        if place is None:
            hint = meant(nearest(source.sifted_by, guards))
            there = ", ".join(guards) or "none"
            message = f'no guard stage is named "{source.sifted_by}";{hint} there are: {there}'
            yield ("data", name, "sifted_by"), message
            continue
        for path, read in named:
            reader = path[1] if path[0] == "stages" else -1
            if read == name and isinstance(reader, int) and reader <= place:
                message = f"{name} is sifted by {source.sifted_by}, which stands no earlier; move it up"
                yield path, message


def _patched(made: list[Variant]) -> Said:
    """What is patched is quantized."""
    final = quantized(made)
    said: dict[int, str] = {}
    for variant in made:
        if variant.method == PATCHING and variant.parent and variant.parent not in final:
            earlier = [each.name for each in made if each.stage_index < variant.stage_index]
            there = ", ".join(name for name in earlier if name in final) or "none"
            said[variant.stage_index] = (
                f"{variant.parent} is not quantized, and {PATCHING} patches quantized variants; "
                f"there are: {there}"
            )
    return [(("stages", index, "from"), message) for index, message in said.items()]


def _guarded(made: list[Variant]) -> Said:
    """A guarded row is its parent with a filter; whatever goes on, goes on from the parent."""
    guarded = {variant.name: variant.parent for variant in made if variant.kind == "guard"}
    said = {
        variant.stage_index: f"{variant.parent} is {guarded[variant.parent]} behind a guard; go on from "
        f"{guarded[variant.parent]}"
        for variant in made
        if variant.parent in guarded
    }
    return [(("stages", index, "from"), message) for index, message in said.items()]
