"""Which variants of the model a recipe makes, what they are called, and which one each is made from.

A variant is a row of the sheet. A stage that fans out makes one variant per method, per method and bit
width, or per algorithm and weight; the next stage goes on from the only variant of the stage before, or
from the one it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import RecipeError
from workbench.recipe.document import KeyPath
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.inputs import Model
from workbench.recipe.methods import MergeAlgorithm
from workbench.recipe.quantization import UNGROUPED, GroupSize
from workbench.recipe.quantize import Quantize
from workbench.recipe.safety import PATCHING, Guarded, Safety
from workbench.recipe.schema import Load, Merge, MergeBack, Recipe, Stage, Vocabulary
from workbench.recipe.training import Continued, Pretrain

Said = list[tuple[KeyPath, str]]


@dataclass(frozen=True)
class Variant:
    """One model of a run.

    Attributes:
        parent: name of the variant it is made from; None for a loaded or newly trained model.
        stage_index: position in `recipe.stages`; -1 for the model that the recipe starts with.
        stage: the stage that makes it; None for the model that the recipe starts with.
        kind: kind of the stage; "load" for the model that the recipe starts with.
        method: `pretrain`, `load`, `merge`, `merge-back`, or the name from the stage's list of methods.
        bits: nominal bits a weight where the stage quantizes, else None.
        algorithm: how the stage merges, else None.
        weight: share of the trained model where the stage merges, else None.
        group_size: weights that share a scale where the stage quantizes, else None.
        triplets: how many of them are trained on, where the recipe says so.
    """

    name: str
    parent: str | None
    stage_index: int
    stage: Stage | None
    kind: str
    method: str
    bits: float | None = None
    algorithm: MergeAlgorithm | None = None
    weight: float | None = None
    group_size: GroupSize | None = None
    triplets: int | None = None


def variants(recipe: Recipe) -> list[Variant]:
    """All variants of a recipe, in the order in which they are made.

    Raises:
        RecipeError: a stage goes on from a variant that does not exist at that point.
    """
    made, faults = trace(recipe.model, recipe.stages)
    if faults:
        raise RecipeError("\n".join(message for _, message in faults))
    return made


def quantized(made: Sequence[Variant]) -> set[str]:
    """Names of the variants whose weights are quantized: patching leaves them so."""
    return {variant.name for variant in made if variant.kind == "quantize" or variant.method == PATCHING}


def trace(model: Model | None, stages: Sequence[Stage | None]) -> tuple[list[Variant], Said]:
    """Variants, and what is wrong with their parents. None stands for a section that cannot be read.

    Behind an unreadable stage nothing is certain, so nothing is reported that it could explain.
    """
    made: list[Variant] = []
    said: Said = []
    if model is not None and model.new is None:
        made.append(Variant("base", None, -1, None, "load", "load"))
    previous = None if model is None else list(made)
    certain = model is not None
    for index, stage in enumerate(stages):
        parent = None
        if stage is None:
            certain = False
        elif isinstance(stage, Continued | Safety | Guarded | Vocabulary | Merge | MergeBack | Quantize):
            parent, message = _parent(stage.start, previous, made if certain else None)
            if message:
                said.append((("stages", index, "from"), message))
        previous = None if stage is None else _made_by(stage, index, parent)
        made += previous or []
    return made, said


def _parent(
    start: str | None, previous: list[Variant] | None, made: list[Variant] | None
) -> tuple[str | None, str]:
    """Name of the parent and, where there is none, why. None instead of a list: not known."""
    if start is not None:
        names = [variant.name for variant in made or ()]
        if made is None or start in names:
            return start, ""
        hint = meant(nearest(start, names))
        return (
            None,
            f'no variant "{start}" exists at this point;{hint} there are: {", ".join(names) or "none"}',
        )
    if previous is None or len(previous) == 1:
        return (previous[0].name if previous else None), ""
    if not previous:
        return None, "there is no model to go on from; the first stage must be pretrain"
    names = [variant.name for variant in previous]
    return None, f"missing; the stage before makes {len(names)} variants, name one: {', '.join(names)}"


def _made_by(stage: Stage, index: int, parent: str | None) -> list[Variant]:
    match stage:
        case Pretrain():
            return [Variant(stage.name, None, index, stage, stage.kind, "pretrain")]
        case Load():
            return [Variant(stage.name, None, index, stage, stage.kind, "load")]
        case Guarded():
            return [Variant(stage.name, parent, index, stage, stage.kind, "guard")]
        case Safety():
            return [
                Variant(
                    f"{stage.name}-{method}{f'-n{size}' if size else ''}",
                    parent,
                    index,
                    stage,
                    stage.kind,
                    method,
                    triplets=size,
                )
                for method in dict.fromkeys(stage.methods)
                for size in stage.sizes_or_all
            ]
        case Continued() | Vocabulary():
            return [
                Variant(f"{stage.name}-{method}", parent, index, stage, stage.kind, method)
                for method in dict.fromkeys(stage.methods)
            ]
        case Merge():
            return [
                Variant(
                    f"{stage.name}-{algorithm}-{weight:g}",
                    parent,
                    index,
                    stage,
                    stage.kind,
                    "merge",
                    algorithm=algorithm,
                    weight=weight,
                )
                for algorithm in dict.fromkeys(stage.algorithms)
                for weight in dict.fromkeys(stage.weights)
            ]
        case MergeBack():
            return [Variant(stage.name, parent, index, stage, stage.kind, "merge-back")]
        case Quantize():
            prefix = "" if stage.name == Quantize.model_fields["name"].default else f"{stage.name}-"
            return [
                Variant(
                    f"{prefix}{method}-w{bits:g}{_suffix(stage, method, group_size)}",
                    parent,
                    index,
                    stage,
                    stage.kind,
                    method,
                    bits,
                    group_size=group_size,
                )
                for method, widths in stage.bits_of.items()
                for bits in widths
                for group_size in dict.fromkeys(stage.group_sizes(method))
            ]


def _suffix(stage: Quantize, method: str, group_size: GroupSize) -> str:
    """What tells apart variants of several group sizes, and those whose linears differ in width."""
    mixed = "-mixed" if stage.allocation else ""
    if stage.groups is None or method in UNGROUPED:
        return mixed
    return ("-channel" if group_size == "channel" else f"-g{group_size}") + mixed
