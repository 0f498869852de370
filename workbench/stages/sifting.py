"""Sifting: of the exchanges of a source, those whose answers a guard calls safe; made once and kept.

What has no verdict is left out too, and all is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench import data, storage
from workbench.errors import DataError
from workbench.recipe.inputs import Source
from workbench.recipe.schema import Recipe
from workbench.safety.guards import sift
from workbench.stages import judges
from workbench.stages.identity import guard_of, source_identity
from workbench.stages.job import Job
from workbench.storage import Store

ROWS, COUNTS = "safe.json", "counts.json"
Counts = Mapping[str, int]  # kept, unsafe and missing


def kept(
    store: Store, source: Source, recipe: Recipe, exchanges: Sequence[data.Exchange]
) -> list[data.Exchange]:
    """The exchanges that the guard of a source lets through, in their order.

    Raises:
        DataError: it lets none through.
        ModelError, RecipeError: the guard cannot be had, or does not judge.
    """

    def build(out: Path) -> None:
        assert source.sifted_by
        judge = guard_of(source.sifted_by, recipe)
        guard = judges.guard(judge, recipe, store)
        prompts, answers = zip(*exchanges, strict=True)
        found = sift(guard, prompts, answers, judge.threshold)
        if not found.safe:
            raise DataError(
                f"sifted_by {source.sifted_by}: none of {len(exchanges)} answers is judged safe "
                f"({len(found.unsafe)} unsafe, {len(found.missing)} without a verdict); look at the guard"
            )
        storage.write_json(out / ROWS, found.safe)
        counts = {"kept": len(found.safe), "unsafe": len(found.unsafe), "missing": len(found.missing)}
        storage.write_json(out / COUNTS, counts)
        judges.forget()

    folder = store.make(_fingerprint(source, recipe), build)
    return [exchanges[row] for row in storage.read_json(folder / ROWS)]


def counts(job: Job) -> dict[str, Counts]:
    """What became of each source of a training that is sifted; its token files are made."""
    sources = {name: job.recipe.data[name] for name in job.mixture if name in job.recipe.data}
    return {
        name: storage.read_json(job.store.path(_fingerprint(source, job.recipe)) / COUNTS)
        for name, source in sources.items()
        if source.sifted_by
    }


def told(found: Mapping[str, Counts]) -> list[str]:
    """What a reader of a row must know of its sifted sources."""
    return [
        f"{name} is sifted: {each['kept']} of {sum(each.values())} exchanges are kept, {each['unsafe']} are "
        f"judged unsafe and {each['missing']} not judged"
        for name, each in found.items()
    ]


def _fingerprint(source: Source, recipe: Recipe) -> str:
    return storage.digest({"kind": "sifted", **source_identity(source, recipe)})
