"""What must hold between the sections of a recipe, each of which may be right by itself.

The checks read plain data, so that they also run on the readable sections of a recipe with faults: a
section that is not valid has been reported already and counts as unknown here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from workbench.recipe import check_curricula, check_preparation, check_safety, check_synthetic
from workbench.recipe.check_curricula import trainings
from workbench.recipe.check_vocabulary import check_vocabulary
from workbench.recipe.document import KeyPath, dig
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.inputs import Model
from workbench.recipe.naming import Said, Variant, quantized, trace
from workbench.recipe.quantization import Calibration
from workbench.recipe.quantize import Quantize
from workbench.recipe.safety import PATCHING
from workbench.recipe.schema import Engine, Evaluate, Load, Merge, MergeBack, Stage
from workbench.recipe.training import Continued, Pretrain, TrainingStage
from workbench.recipe.validation import readable

MIXTURES = (
    ("mixture",),
    ("replay", "mixture"),
    ("ewc", "mixture"),
    ("calibration", "mixture"),
    ("tuning", "mixture"),
)
EXPANDING = ("control-llm", "llama-pro")
CHANGED = (*EXPANDING, "mogu")  # methods that do not keep the architecture
TUNING = ("cpt", "sft", "safety")
_FANS = ("methods", "bits", "groups", "algorithms", "weights", "sizes")
_DATA_ROOT = "$WORKBENCH_DATA"
_STAGE: TypeAdapter[Stage] = TypeAdapter(Stage)
_RANGE = TypeAdapter(tuple[float, float])


def check(data: dict[str, Any]) -> Said:
    """What is wrong between the sections of a recipe, as key paths and messages."""
    model = readable(TypeAdapter(Model), data.get("model"))
    engine = readable(TypeAdapter(Engine), data.get("engine", {}))
    evaluate = readable(TypeAdapter(Evaluate), data.get("evaluate"))
    raw = data.get("stages")
    stages = [readable(_STAGE, stage) for stage in raw] if isinstance(raw, list) else []
    made, said = trace(model, stages)
    certain = model is not None and None not in stages
    said += _paths(data, ())
    said += _sources(data)
    said += check_vocabulary(data)
    said += _order(model, stages)
    said += _names(made)
    said += _repeats(data)
    said += _lengths(model, stages, made)
    said += _parents(made)
    said += _merges(made)
    said += _expansions(model, stages, made)
    said += check_preparation.check(data)
    said += check_curricula.check(data, stages, made)
    said += check_synthetic.check(data, made, certain=certain)
    said += check_safety.check(data, stages, made, _references(data), certain=certain)
    if engine is not None:
        said += _engine(engine, stages)
    if certain:
        said += _rows(evaluate, made)
        said += _expected(data, made)
    return said


def _paths(value: Any, path: KeyPath) -> Said:
    """Paths may begin with $WORKBENCH_DATA; nothing else in a recipe is expanded."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [said for key, each in pairs for said in _paths(each, (*path, key))]
    if not isinstance(value, str) or path[-1] == "description":
        return []
    if path[-1] != "path":
        misplaced = f"{_DATA_ROOT} is expanded at the beginning of a path only"
        return [(path, misplaced)] if _DATA_ROOT in value else []
    if re.fullmatch(r"(\$WORKBENCH_DATA(?=/|$))?[^$]*", value) and value[:1] not in ("", "~"):
        return []
    return [
        (path, f'found "{value}"; allowed: a path, with nothing to expand but {_DATA_ROOT}/ at its beginning')
    ]


def _sources(data: dict[str, Any]) -> Said:
    """Every source that is named somewhere exists in data."""
    declared = data.get("data", {})
    if not isinstance(declared, dict):
        return []
    said: Said = []
    for path, name in _references(data):
        if name not in declared:
            hint = meant(nearest(name, declared))
            said.append(
                (path, f'no source "{name}" in data;{hint} there are: {", ".join(declared) or "none"}')
            )
    return said


def _references(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    tokenizer: KeyPath = ("model", "new", "tokenizer_sources")
    names = dig(data, tokenizer)
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if isinstance(name, str):
            yield (*tokenizer, index), name
    stages = data.get("stages")
    for index in range(len(stages) if isinstance(stages, list) else 0):
        for keys in MIXTURES:
            path: KeyPath = ("stages", index, *keys)
            mixture = dig(data, path)
            for name in mixture if isinstance(mixture, dict) else ():
                yield (*path, name), name


def _order(model: Model | None, stages: list[Stage | None]) -> Said:
    """A new model is pretrained first; a finished one is not pretrained."""
    said: Said = []
    for index, stage in enumerate(stages):
        if isinstance(stage, Pretrain) and index > 0:
            said.append((("stages", index, "kind"), "pretrain must be the first stage; go on with cpt"))
        elif isinstance(stage, Pretrain) and model is not None and model.new is None:
            said.append(
                (("stages", index, "kind"), "pretrain needs model.new; a finished model goes on with cpt")
            )
        elif isinstance(stage, Load) and stage.model.new is not None:
            said.append((("stages", index, "model", "new"), "load brings a finished model; give path or hub"))
    if model is not None and model.new is not None and stages and isinstance(stages[0], Load):
        said.append((("stages", 0, "kind"), "a new model must be pretrained first; load comes later"))
    return said


def _names(made: list[Variant]) -> Said:
    """Names of variants are unique."""
    said: Said = []
    first: dict[str, Variant] = {}
    for variant in made:
        other = first.setdefault(variant.name, variant)
        if other is not variant:
            by = "the recipe's model" if other.stage_index < 0 else f"stages[{other.stage_index}]"
            message = f"variant {variant.name} is made by {by} already; give this stage another name"
            said.append((("stages", variant.stage_index, "name"), message))
    return said


def _repeats(data: dict[str, Any]) -> Said:
    """Lists of methods, bits and rows name each thing once."""
    stages = data.get("stages")
    count = len(stages) if isinstance(stages, list) else 0
    paths: list[KeyPath] = [("stages", index, key) for index in range(count) for key in _FANS]
    said: Said = []
    for path in (*paths, ("evaluate", "rows"), ("model", "new", "tokenizer_sources")):
        items = dig(data, path)
        if isinstance(items, list):
            counts = Counter(item for item in items if isinstance(item, str | int | float))
            repeated = [str(item) for item, times in counts.items() if times > 1]
            said += [(path, f"names {', '.join(repeated)} more than once")] if repeated else []
    return said


def _lengths(model: Model | None, stages: list[Stage | None], made: list[Variant]) -> Said:
    """Sequences fit into the context of a new model, in all that is made from it."""
    if model is None or model.new is None:
        return []
    new = {variant.name for variant in made if variant.kind == "pretrain"}
    for variant in made:
        if variant.parent in new:
            new.add(variant.name)
    said: Said = []
    for index in sorted({variant.stage_index for variant in made if variant.name in new}):
        stage = stages[index]
        sections: list[tuple[KeyPath, TrainingStage | Calibration | None]] = [*trainings(stage, index)]
        if isinstance(stage, Quantize):
            sections.append((("stages", index, "calibration"), stage.calibration))
        for path, section in sections:
            if section is not None and section.sequence_length > model.new.context:
                message = (
                    f"{section.sequence_length} is longer than model.new.context, "
                    f"which is {model.new.context}"
                )
                said.append(((*path, "sequence_length"), message))
    return said


def _parents(made: list[Variant]) -> Said:
    """Quantized weights are final: nothing goes on from them but q-resafe and a guard."""
    final = quantized(made)
    said = {
        variant.stage_index: f"{variant.parent} is quantized; {variant.kind} cannot go on from it"
        f"{f'; only {PATCHING} can' if variant.kind == 'safety' else ''}"
        for variant in made
        if variant.parent in final and variant.method not in (PATCHING, "guard")
    }
    return [(("stages", index, "from"), message) for index, message in said.items()]


def _merges(made: list[Variant]) -> Said:
    """A merge has a trained variant and what it was made from; merge-back has a Control LLM."""
    by_name = {variant.name: variant for variant in made}
    said: dict[int, str] = {}
    for variant in made:
        parent = by_name.get(variant.parent or "")
        if parent is None:
            continue
        if isinstance(variant.stage, Merge) and (parent.kind not in TUNING or parent.method in CHANGED):
            said[variant.stage_index] = (
                f"{parent.name} cannot be merged with what it was made from; name a variant of "
                f"{', '.join(TUNING)} whose method keeps the architecture, not {' or '.join(CHANGED)}"
            )
        elif isinstance(variant.stage, MergeBack) and not _parallel(parent):
            said[variant.stage_index] = (
                f"{parent.name} has no copies to merge back; name a variant of the method control-llm, "
                "whose structure is concat or hybrid"
            )
    return [(("stages", index, "from"), message) for index, message in said.items()]


def _parallel(variant: Variant) -> bool:
    """Whether the variant has copies beside blocks."""
    if variant.method != "control-llm" or not isinstance(variant.stage, Continued):
        return False
    return variant.stage.control_llm is not None and variant.stage.control_llm.structure != "stack"


def _expansions(model: Model | None, stages: list[Stage | None], made: list[Variant]) -> Said:
    """Blocks to copy divide the layers of a new model."""
    if model is None or model.new is None:
        return []
    said: Said = []
    for index in {variant.stage_index for variant in made if variant.method in EXPANDING}:
        stage, layers = stages[index], model.new.layers
        assert isinstance(stage, Continued)
        for section, key in ((stage.control_llm, "control_llm"), (stage.llama_pro, "llama_pro")):
            if section is not None and layers % section.blocks:
                fitting = [count for count in range(1, layers + 1) if layers % count == 0]
                message = (
                    f"{section.blocks} does not divide model.new.layers, which is {layers}; "
                    f"use one of {fitting}"
                )
                said.append((("stages", index, key, "blocks"), message))
    return said


def _engine(engine: Engine, stages: list[Stage | None]) -> Said:
    """Batches divide over processes; offloading fits the ZeRO stage."""
    said: Said = []
    for index, stage in enumerate(stages):
        for path, training in trainings(stage, index):
            micro = training.micro_batch_size or 1
            part = engine.processes * micro
            if training.batch_size % part:
                below, above = training.batch_size // part * part, -(-training.batch_size // part) * part
                message = (
                    f"{training.batch_size} is not a multiple of {part} "
                    f"(engine.processes {engine.processes} x micro_batch_size {micro}); "
                    f"use {f'{below} or ' if below else ''}{above}"
                )
                said.append(((*path, "batch_size"), message))
    needed = {"none": 0, "optimizer": 1, "parameters": 3}[engine.offload]
    if engine.zero_stage < needed:
        at_least = "3" if needed == 3 else "1, 2 or 3"
        said.append(
            (
                ("engine", "offload"),
                f"{engine.offload} needs zero_stage {at_least}; found {engine.zero_stage}",
            )
        )
    return said


def _rows(evaluate: Evaluate | None, made: list[Variant]) -> Said:
    """Evaluated rows exist."""
    names = [variant.name for variant in made]
    if evaluate is None:
        return []
    rows = names if evaluate.rows == "all" else evaluate.rows
    said: Said = [
        (("evaluate", "rows", index), _no_variant(row, names))
        for index, row in enumerate(rows)
        if row not in names
    ]
    for row, other in evaluate.against.items():
        for name in (row, other):
            if name not in rows:
                said.append((("evaluate", "against", row), _no_variant(name, rows)))
    return said


def _expected(data: dict[str, Any], made: list[Variant]) -> Said:
    """Expected ranges are ranges, of variants that exist."""
    names = [variant.name for variant in made]
    said: Said = []
    expect = data.get("expect")
    for key, bounds in expect.items() if isinstance(expect, dict) else ():
        if not any(key.startswith(f"{name}.") for name in names):
            said.append(
                (("expect", key), f"begins with no variant; {_no_variant(key.partition('.')[0], names)}")
            )
        if readable(_RANGE, bounds) and bounds[0] > bounds[1]:
            said.append((("expect", key), f"{bounds} is not a range: write [low, high]"))
    return said


def _no_variant(name: str, names: list[str]) -> str:
    return f'no variant "{name}";{meant(nearest(name, names))} there are: {", ".join(names)}'
