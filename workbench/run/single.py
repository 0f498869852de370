"""What users do outside of a recipe: evaluate one folder, export one folder, compare two finished runs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from rich.table import Table

from workbench import evaluation, models, sheet
from workbench.errors import RunError
from workbench.evaluation import Measurement
from workbench.quantization.export.dense import densify
from workbench.recipe.inputs import Model
from workbench.recipe.loading import Loaded, resolved
from workbench.recipe.schema import Evaluate, Recipe
from workbench.sheet import RowInput


def evaluation_recipe(model: Path, battery: str, seed: int) -> Loaded:
    """The recipe that evaluates a model folder and changes nothing about it."""
    name = re.sub(r"[^a-z0-9._-]+", "-", model.resolve().name.lower()).strip("-._") or "model"
    return resolved(
        Recipe(
            name=f"eval/{battery}/{name}",
            description=f"{model.name} under the battery {battery}",
            seed=seed,
            model=Model(path=str(model)),
            evaluate=Evaluate(battery=battery),
        )
    )


def export_dense(model: Path, to: Path) -> Path:
    """Write a model folder, quantized or not, as plain weights that stock transformers loads.

    Raises:
        RunError: the target exists.
        ModelError: the source is not a sound model folder.
    """
    if to.exists():
        raise RunError(f"{to}: exists already; name a folder that does not")
    loaded = models.load(model)
    densify(loaded)
    partial = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        models.save(
            loaded, models.load_tokenizer(model), partial, {"exported from": model.name, "format": "dense"}
        )
        os.rename(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return to


def compare_runs(first: Path, second: Path) -> Table:
    """Rows of the same name in two finished runs, the second against the first, item by item.

    Raises:
        RunError: a folder is not a finished run, or no row of the two can be compared.
    """
    ours, theirs = _rows(first), _rows(second)
    shared = [variant for variant in theirs if variant in ours]
    if not shared:
        raise RunError(
            f"{first} has rows {', '.join(ours)}, {second} has {', '.join(theirs)}: none in common"
        )
    table = Table("row", "what the items say")
    before, after = str(first), str(second)
    for variant in shared:
        rows = [_row(before, None, ours[variant]), _row(after, before, theirs[variant])]
        for found in sheet.build(variant, rows, seed=0).comparisons:
            table.add_row(variant, found.sentence)
    return table


def _row(variant: str, parent: str | None, measurements: list[Measurement]) -> RowInput:
    return RowInput(variant, parent, "", "", {}, None, None, None, measurements, None, None, None)


def _rows(run: Path) -> dict[str, list[Measurement]]:
    folders = sorted(path for path in (run / "evals").glob("*") if path.is_dir())
    if not folders:
        raise RunError(f"{run}: no evaluated rows in {run / 'evals'}; name the folder of a finished run")
    return {folder.name: evaluation.read(folder) for folder in folders}
