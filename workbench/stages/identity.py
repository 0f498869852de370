"""What determines texts, writers, judges and models, reduced to plain values for a fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import data, evaluation, safety, storage
from workbench.errors import RecipeError
from workbench.recipe.inputs import Model, Source
from workbench.recipe.preparation import Generated, Synthetic, Writer
from workbench.recipe.safety import Grader, Guarded, Judge
from workbench.recipe.schema import Recipe
from workbench.safety import grading
from workbench.safety.guards import llama_guard
from workbench.safety.guards.taxonomy import BUILT_IN, load_taxonomy, taxonomy_of
from workbench.storage import Store

# Raise a number when the same settings would make a different result.
VERSIONS = {
    "miniworld": 2,
    "tokenizer": 1,
    "tokens": 2,
    "ordered": 1,
    "preparation": 1,
    "synthetic": 1,
    "generated": 1,
    "sifted": 1,
    "load": 1,
    "pretrain": 3,
    "cpt": 3,
    "sft": 1,
    "safety": 1,
    "guard": 1,
    "moderation": 1,
    "triplets": 2,
    "expand": 1,
    "fisher": 1,
    "vocabulary": 1,
    "merge": 1,
    "merge-back": 1,
    "sensitivities": 1,
    "rounded": 1,
    "quantize": 3,
    "evaluate": 2,
    "verdicts": 2,
}


def source_identity(source: Source, recipe: Recipe) -> dict[str, Any]:
    """What determines the text of a source, for a fingerprint.

    Raises:
        RecipeError: what it is prepared, written or sifted by is not in the recipe.
    """
    if source.sifted_by:
        whole = source.model_copy(update={"sifted_by": None})
        judge = judge_identity(guard_of(source.sifted_by, recipe), recipe)
        return {"sifted": source_identity(whole, recipe), "judge": judge, "version": VERSIONS["sifted"]}
    if source.miniworld:
        generated = source.model_dump(include={"miniworld", "documents"})
        topic = {"topic": source.topic} if source.topic else {}
        return {**generated, **topic, "seed": recipe.seed, "version": VERSIONS["miniworld"]}
    if source.requests:
        asked = safety.requests_identity(source.requests, recipe.seed)
        return {"requests": asked, "documents": source.documents}
    if source.moderation:
        asked = safety.requests_identity(source.moderation, recipe.seed)
        form: dict[str, Any] = {}
        if source.form == "llama-guard":
            hazards = load_taxonomy(BUILT_IN / f"{source.taxonomy}.yaml").text if source.taxonomy else None
            form = {"hazards": hazards, "draws": llama_guard.TAXONOMIES_EACH, "seed": recipe.seed}
        return {"moderation": asked, "documents": source.documents, **form}
    if source.synthetic:
        return {**synthetic_identity(source.synthetic, recipe), "documents": source.documents}
    if source.generated:
        return {**generated_identity(source.generated, recipe), "held": source.documents}
    if source.prepared:
        chosen = source.model_dump(include={"where", "documents"})
        return {"preparation": preparation_fingerprint(source.prepared, recipe), **chosen}
    return data.identity(source)


def guard_of(name: str, recipe: Recipe) -> Judge:
    """The guard of a stage.

    Raises:
        RecipeError: the recipe has no such stage.
    """
    for stage in recipe.stages:
        if isinstance(stage, Guarded) and stage.name == name:
            return stage.guard
    raise RecipeError(f"sifted_by: no guard stage {name} in {recipe.name}; name one")


def preparation_fingerprint(name: str, recipe: Recipe) -> str:
    """Hash of all that determines a preparation: its settings, its texts, and the questions it avoids.

    Raises:
        RecipeError: the recipe has no such preparation.
    """
    if name not in recipe.prepare:
        there = ", ".join(recipe.prepare) or "none"
        raise RecipeError(f"prepared: no preparation {name} in prepare of {recipe.name}; there are: {there}")
    section = recipe.prepare[name]
    avoided = recipe.evaluate if section.decontaminate else None
    return storage.digest(
        {
            "kind": "preparation",
            "version": VERSIONS["preparation"],
            "settings": section.model_dump(),
            "sources": {
                source: source_identity(recipe.data[source], recipe) for source in sorted(section.texts)
            },
            "battery": evaluation.battery_identity(avoided.battery) if avoided else None,
            "seed": recipe.seed if avoided else None,
        }
    )


def synthetic_identity(settings: Synthetic, recipe: Recipe) -> dict[str, Any]:
    """What determines synthetic text: the snippets, the writer and all that is asked of it.

    Raises:
        RecipeError: the snippets or the writer are not in the recipe.
    """
    if settings.snippets not in recipe.data:
        raise RecipeError(
            f"synthetic.snippets: no source {settings.snippets} in data of {recipe.name}; name one"
        )
    return {
        "kind": "synthetic",
        "version": VERSIONS["synthetic"],
        "settings": settings.model_dump(exclude={"snippets", "writer"}),
        "snippets": source_identity(recipe.data[settings.snippets], recipe),
        "writer": writer_identity(settings.writer, recipe),
        "seed": recipe.seed,
    }


def generated_identity(settings: Generated, recipe: Recipe) -> dict[str, Any]:
    """What determines text that a model writes from nothing.

    Raises:
        RecipeError: the writer is not in the recipe.
    """
    return {
        "kind": "generated",
        "version": VERSIONS["generated"],
        "settings": settings.model_dump(exclude={"writer"}),
        "writer": writer_identity(settings.writer, recipe),
        "seed": recipe.seed,
    }


def writer_identity(writer: Writer, recipe: Recipe) -> dict[str, Any]:
    """What determines what a writer writes."""
    if writer.path:
        return model_identity(Model(path=writer.path))
    if writer.variant:
        return {"variant": _of_variant(writer.variant, recipe)}
    return {"endpoint": writer.endpoint, "model": writer.model}


def judge_identity(judge: Judge, recipe: Recipe) -> dict[str, Any]:
    """What determines the verdicts of a judge."""
    model = model_identity(judge.model) if judge.model else None
    if judge.variant:
        model = {"variant": _of_variant(judge.variant, recipe)}
    seed = recipe.seed if judge.kind == "miniworld" else None
    found = {**judge.model_dump(include={"kind", "taxonomy", "threshold"}), "model": model, "seed": seed}
    return found | ({"hazards": taxonomy_of(judge).text} if judge.kind == "llama-guard" else {})


def grader_identity(grader: Grader, recipe: Recipe) -> dict[str, Any]:
    """What determines the marks of a grader."""
    model = model_identity(grader.model) if grader.model else None
    if grader.variant:
        model = {"variant": _of_variant(grader.variant, recipe)}
    asked = grading.RUBRIC if grader.kind == "rubric" else None
    return {**grader.model_dump(include={"kind", "max_new_tokens"}), "model": model, "asked": asked}


def model_identity(model: Model) -> dict[str, Any]:
    """What determines the weights of a model that is brought in: the pinned commit, or a folder's files."""
    if model.hub:
        return {"hub": model.hub, "revision": model.revision, "dtype": model.dtype}
    assert model.path
    folder = data.resolve(model.path)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return {
        "dtype": model.dtype,
        "files": {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files},
        "path": str(folder.resolve()),
    }


def _of_variant(name: str, recipe: Recipe) -> str:
    """The fingerprint of a variant of the recipe."""
    from workbench.stages.job import job_of  # a job is made of identities, and this one of a job

    return job_of(recipe, name, Store(Path())).fingerprint
