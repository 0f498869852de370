"""Moderation: the guard of a row by itself, scored against labelled texts; its model is not asked.

Every verdict is stored as soon as there are some, so that a stopped scoring goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workbench import storage
from workbench.evaluation import measurement
from workbench.evaluation.battery import ModerationEntry
from workbench.progress import progress
from workbench.recipe.safety import Guarded
from workbench.safety import moderation
from workbench.safety.guards import guard_metrics
from workbench.safety.guards.guard_metrics import Judged
from workbench.safety.guards.protocol import CategoryGuard, Guard
from workbench.safety.moderation import Text
from workbench.stages import judges
from workbench.stages.job import Job

AT_ONCE = 256  # texts between two writings of what was judged
PROMPTS, RESPONSES = "moderation", "moderation_responses"
Said = dict[str, Any]  # a verdict and the scores of categories, as they are stored


def tell(job: Job, entry: ModerationEntry, out: Path) -> None:
    """Judge the texts and write `out/safety.moderation.json`, and another file for responses.

    Args:
        job: a row with a guard.
        entry: which texts.
        out: folder of the row's measurements.

    Raises:
        DataError, ModelError, RecipeError: the guard or the texts cannot be had, or the guard cannot judge.
    """
    stage = job.variant.stage
    assert isinstance(stage, Guarded)
    texts = moderation.texts(entry.texts, job.recipe.seed)
    for task, of in (
        (PROMPTS, [text for text in texts if text.response is None]),
        (RESPONSES, [text for text in texts if text.response is not None]),
    ):
        path = out / f"safety.{task}.json"
        if not of or path.is_file():
            continue
        guard = judges.guard(stage.guard, job.recipe, job.store)
        names = _scored(guard, of) if entry.by_category else []
        judge = partial(_judged, guard, names)
        known = _kept(out / f"{task}-verdicts.json", of, judge, f"{job.variant.name}: {entry.texts}")
        told = [_told(text, known[text.id], stage.guard.threshold) for text in of]
        measurement.write(path, guard_metrics.measured(task, told, _protocol(entry, of, stage)))


def _scored(guard: Guard, texts: Sequence[Text]) -> list[str]:
    """The categories of the guard that the texts are labelled with."""
    if not isinstance(guard, CategoryGuard):
        return []
    labels = {name for text in texts for name in text.labels}
    return [name for name in guard.categories if name in labels]


def _judged(guard: Guard, names: Sequence[str], texts: Sequence[Text]) -> list[Said]:
    """What a guard says of texts that are all prompts, or all responses."""
    prompts = [text.prompt for text in texts]
    responses = [text.response for text in texts if text.response is not None] or None
    verdicts = guard.judge(prompts, responses)
    made: list[Said] = [
        {"unsafe": each.unsafe, "categories": each.categories, "note": each.note} for each in verdicts
    ]
    if names:
        assert isinstance(guard, CategoryGuard)
        scores = guard.category_scores(prompts, responses, names)
        for row, found in zip(made, scores.tolist(), strict=True):
            told = zip(names, found, strict=True)
            row["by_category"] = {name: score for name, score in told if not math.isnan(score)}
    return made


def _kept(
    path: Path, texts: Sequence[Text], judge: Callable[[Sequence[Text]], list[Said]], title: str
) -> dict[str, Said]:
    """What a guard says of each text by its id, now or from the file."""
    known: dict[str, Said] = storage.read_json(path) if path.is_file() else {}
    missing = [text for text in texts if text.id not in known]
    with progress(title, len(texts), "texts", done=len(known)) as advance:
        # In even parts: a last one of a few texts might have no verdict at all, as if the guard were none.
        size = math.ceil(len(missing) / max(1, math.ceil(len(missing) / AT_ONCE)))
        for start in range(0, len(missing), size or 1):
            rows = missing[start : start + size]
            known |= dict(zip([row.id for row in rows], judge(rows), strict=True))
            storage.write_json(path, known)
            advance(len(rows))
    return known


def _told(text: Text, said: Said, threshold: float) -> Judged:
    score = said["unsafe"]
    return Judged(text, score, None if score is None else score > threshold, said.get("by_category", {}))


def _protocol(entry: ModerationEntry, texts: Sequence[Text], stage: Guarded) -> str:
    """Which texts; the guard and its taxonomy are what rows differ in, and in their fingerprints."""
    rows = [[text.id, text.prompt, text.response, text.labels] for text in texts]
    unsafe = sum(text.unsafe for text in texts)
    kind = "prompts" if texts[0].response is None else "responses"
    return (
        f"moderation set {entry.texts}: {len(texts)} {kind}, {unsafe} unsafe ({storage.digest(rows)[:8]}); "
        f"above {stage.guard.threshold:g}"
    )
