"""No request that a recipe's evaluation asks is among those that its trainings see."""

from __future__ import annotations

from collections.abc import Sequence

from workbench import evaluation, safety
from workbench.recipe.preparation import Decontamination
from workbench.recipe.safety import Safety
from workbench.recipe.schema import Recipe
from workbench.safety import Request
from workbench.safety.leaks import check_leaks


def check(recipe: Recipe) -> None:
    """Make sure that a recipe's evaluation asks nothing that its trainings see, whether they are made or not.

    They see the harmful requests of triplets, the harmless ones of `requests` sources, and all of
    `moderation` sources, those before they are dressed.

    Raises:
        DataError: it does; names the first rows.
    """
    for stage in recipe.stages:
        if isinstance(stage, Safety):
            rows = safety.divided(stage.triplets.requests, recipe.seed)["train"]
            check_requests([row for row in rows if row.harmful], recipe)
    for source in recipe.data.values():
        if name := source.requests or source.moderation:
            rows = safety.divided(name, recipe.seed)["train"]
            check_requests([row for row in rows if source.moderation or not row.harmful], recipe)


def check_requests(rows: Sequence[Request], recipe: Recipe) -> None:
    """Make sure that the recipe's evaluation asks none of some requests, before they are dressed.

    Raises:
        DataError: it does; names the first rows.
    """
    if measured := _measured(recipe):
        check_leaks({each.id: each.bare for each in rows}, measured, Decontamination())


def _measured(recipe: Recipe) -> dict[str, list[str]]:
    """Requests of the recipe's evaluation, by their set."""
    entry = evaluation.load_battery(recipe.evaluate.battery).safety if recipe.evaluate else None
    if entry is None:
        return {}
    rows = safety.divided(entry.requests, recipe.seed)["evaluation"]
    return {entry.requests: list(dict.fromkeys(row.bare for row in rows))}
