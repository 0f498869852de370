"""No request that a recipe's evaluation asks is among those that its trainings see."""

from __future__ import annotations

from collections.abc import Sequence

from workbench import evaluation, safety
from workbench.recipe.inputs import Source
from workbench.recipe.preparation import Decontamination
from workbench.recipe.schema import Recipe
from workbench.safety import Request
from workbench.safety.leaks import check_leaks


def check_requests(rows: Sequence[Request], recipe: Recipe) -> None:
    """Make sure that the recipe's evaluation asks none of some requests, before they are dressed.

    Raises:
        DataError: it does; names the first rows.
    """
    measured = _measured(recipe)
    if measured:
        check_leaks({each.id: each.bare for each in rows}, measured, Decontamination())


def check_source(source: Source, recipe: Recipe) -> None:
    """The same of the requests that a source trains on, such as harmless ones that look harmful.

    Raises:
        DataError: as in `check_requests`.
    """
    if name := source.requests or source.moderation:
        rows = safety.divided(name, recipe.seed)["train"]
        check_requests([row for row in rows if source.moderation or not row.harmful], recipe)


def _measured(recipe: Recipe) -> dict[str, list[str]]:
    """Requests of the recipe's evaluation, by their set."""
    entry = evaluation.load_battery(recipe.evaluate.battery).safety if recipe.evaluate else None
    if entry is None:
        return {}
    rows = safety.divided(entry.requests, recipe.seed)["evaluation"]
    return {entry.requests: list(dict.fromkeys(row.bare for row in rows))}
