"""Preference triplets of a safety stage (Egida, arXiv 2502.13603): the target answers, a judge tells.

All methods and sizes of a stage share them. A judge sees a request as it was before it was dressed. Prompts
are in one random order, so that the triplets of a smaller size are the first ones of a larger. Answers,
verdicts and replies are kept batch by batch, each in a file of its own, so a making that was stopped goes
on at its batch.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from workbench import evaluation, models, safety, storage
from workbench.errors import DataError
from workbench.progress import progress
from workbench.recipe.preparation import Decontamination
from workbench.recipe.safety import Safety, Triplets
from workbench.recipe.schema import Recipe
from workbench.safety import Request, triplets
from workbench.safety.guards import Guard, judge_generations
from workbench.safety.leaks import check_leaks
from workbench.safety.triplets import Built, Candidate, Prompt, Triplet
from workbench.stages import judges, writers
from workbench.stages.job import Job

TRIPLETS, COUNTS = "triplets.jsonl", "triplets.json"
CHUNK = 256  # prompts of a file
BATCH = 64  # prompts in one forward pass
REASONS = {
    "safe": "are safe already",
    "unjudged": "got no verdict",
    "empty": "are empty",
    "unanswered": "are unsafe without a safe reply to choose",
}

Judged = list[float | None]


def make(job: Job) -> Path:
    """The folder of a safety stage's triplets, made if it is not there yet.

    Raises:
        DataError: an evaluation set asks what would be trained on, a request is too long for the target,
            no refusals to choose, or no triplet came out; says which or why.
    """
    return job.store.make(job.triplets_fingerprint, lambda out: build(job, out), resumable=True)


def read(job: Job) -> list[Triplet]:
    """The triplets that a variant is trained on.

    Raises:
        DataError: as in `make`; or there are fewer than the variant wants.
    """
    fingerprint = job.triplets_fingerprint
    # Several processes may read at once, but only one may make.
    folder = job.store.path(fingerprint) if job.store.has(fingerprint) else make(job)
    made = triplets.read(folder / TRIPLETS)
    size = job.variant.triplets or len(made)
    if size > len(made):
        raise DataError(
            f"{job.variant.name}: sizes asks for {size} triplets, but the target gave {len(made)}; lower it, "
            "or give more requests"
        )
    return made[:size]


def build(job: Job, out: Path) -> None:
    """Write `triplets.jsonl` and `triplets.json`; see `make`."""
    stage = job.variant.stage
    assert isinstance(stage, Safety)
    section, recipe = stage.triplets, job.recipe
    requests = prompts(section, recipe)
    answered = _answers(job.target, requests, section, out)
    guard = judges.guard(section.judge, recipe, job.store)
    unsafe = _verdicts(
        guard, [each.prompt for each in requests], answered, out / "verdicts", "judging answers"
    )
    threshold = section.judge.threshold
    wanted = [row for row, score in enumerate(unsafe) if score is not None and score > threshold]
    replies = _chosen(job, [requests[row] for row in wanted], section, out)
    asked = [requests[row].bare for row in wanted]
    scores = _verdicts(
        guard, asked, [text for _, text in replies], out / "chosen-verdicts", "judging replies"
    )
    judges.forget()
    offered: list[list[Candidate]] = [[] for _ in requests]
    for row, (source, text), score in zip(wanted, replies, scores, strict=True):
        if text.strip():
            offered[row] = [Candidate(source, text, score)]
    built = triplets.build(
        [_prompt(each) for each in requests], answered, unsafe, offered, judge=guard.name, threshold=threshold
    )
    counts = _counts(job.target.variant.name, section, requests, built)
    storage.write_json(out / COUNTS, counts)
    if not built.triplets:
        raise DataError(f"no triplet for {job.target.variant.name}: {_why(built, len(requests))}")
    triplets.write(out / TRIPLETS, built.triplets)


def prompts(section: Triplets, recipe: Recipe) -> list[Request]:
    """The harmful requests that may train, in random order.

    Raises:
        DataError: there are none, or the recipe's evaluation asks some of them; names the rows.
    """
    found = safety.divided(section.requests, recipe.seed)["train"]
    harmful = [each for each in found if each.harmful]
    if not harmful:
        raise DataError(
            f"triplets.requests: {section.requests} has no harmful request that may train; lower its "
            "held_out, or take another set"
        )
    if section.chosen is None and (without := [each.id for each in harmful if each.refusal is None]):
        raise DataError(
            f"triplets.requests: {len(without)} requests of {section.requests} come without a refusal, "
            f"{without[0]} is the first; name a writer as triplets.chosen"
        )
    check_leaks({each.id: each.bare for each in harmful}, _measured(recipe), Decontamination())
    random.Random(f"triplets/{recipe.seed}").shuffle(harmful)
    return harmful


def _measured(recipe: Recipe) -> dict[str, list[str]]:
    """Requests of the recipe's evaluation, by their set."""
    entry = evaluation.load_battery(recipe.evaluate.battery).safety if recipe.evaluate else None
    if entry is None:
        return {}
    rows = safety.divided(entry.requests, recipe.seed)["evaluation"]
    return {entry.requests: list(dict.fromkeys(row.bare for row in rows))}


def _answers(target: Job, requests: Sequence[Request], section: Triplets, out: Path) -> list[str]:
    """What the target says to each request."""
    from workbench.evaluation import answers  # imports lm-eval, which takes seconds

    folder = out / "answers"
    paths = [folder / f"{start:08d}.json" for start in range(0, len(requests), CHUNK)]
    if not all(path.is_file() for path in paths):
        model = models.load(target.model_folder, getattr(torch, target.origin.dtype))
        torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
        tokenizer = models.load_tokenizer(target.model_folder)
        _check_room(requests, tokenizer, model.config.max_position_embeddings - section.max_new_tokens)

        def answer(start: int) -> list[dict[str, Any]]:
            part = requests[start : start + CHUNK]
            said = answers.generate(
                model,
                tokenizer,
                [answers.Asked(each.prompt) for each in part],
                max_new_tokens=section.max_new_tokens,
                batch_size=BATCH,
                title=f"{target.variant.name}: {start + len(part)} of {len(requests)}",
            )
            return [{"id": each.id, **asdict(made)} for each, made in zip(part, said, strict=True)]

        _kept(folder, len(requests), answer)
        del model
        gc.collect()
    return [row["text"] for path in paths for row in storage.read_json(path)]


def _check_room(requests: Sequence[Request], tokenizer: Any, room: int) -> None:
    """See that the target can answer every request."""
    from workbench.evaluation import answers

    lengths = {}
    for each in requests:
        try:
            text = answers.stem(tokenizer, each.prompt)
        except DataError as error:
            raise DataError(f"request {each.id}: {error}") from error
        lengths[each.id] = len(tokenizer.encode(text, add_special_tokens=False))
    if long := [f"{name} ({length})" for name, length in lengths.items() if length > room]:
        raise DataError(
            f"{len(long)} requests have more than the {room} tokens that the target can read before an "
            f"answer: {', '.join(long[:5])}; lower max_new_tokens, or leave out styles that are long"
        )


def _verdicts(guard: Guard, asked: Sequence[str], said: Sequence[str], folder: Path, title: str) -> Judged:
    """The judge's probability that each answer is unsafe."""
    with progress(title, len(asked), "answers") as advance:

        def judge(start: int) -> Judged:
            stop = start + CHUNK
            return [each.unsafe for each in judge_generations(guard, asked[start:stop], said[start:stop])]

        return _kept(folder, len(asked), judge, advance)


def _chosen(job: Job, requests: Sequence[Request], section: Triplets, out: Path) -> list[tuple[str, str]]:
    """Who refuses each request, and how: its own refusal, or a writer's reply to it, undressed."""
    if section.chosen is None:
        return [(section.requests, each.refusal or "") for each in requests]
    bare = list(dict.fromkeys(each.bare for each in requests))
    if not bare:
        return []
    write = writers.of(job.store, section, job.recipe)

    def reply(start: int) -> list[str]:
        return [each.text or "" for each in write(bare[start : start + CHUNK], job.recipe.seed)]

    said = dict(zip(bare, _kept(out / "replies", len(bare), reply), strict=True))
    writer = section.chosen.variant or section.chosen.path or section.chosen.model
    return [(str(writer), said[each.bare]) for each in requests]


def _kept(
    folder: Path, total: int, work: Callable[[int], list[Any]], advance: Callable[[int], None] | None = None
) -> list[Any]:
    """The results of all chunks, each worked out now or in a try before, which left it in its file."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for start in range(0, total, CHUNK):
        path = folder / f"{start:08d}.json"
        if not path.is_file():
            storage.write_json(path, work(start))
        part = storage.read_json(path)
        made += part
        if advance:
            advance(len(part))
    return made


def _prompt(request: Request) -> Prompt:
    return Prompt(
        id=request.id,
        base_id=request.base_id,
        topics=list(request.topics),
        style=request.style,
        split="train",
        prompt=request.prompt,
    )


def _counts(target: str, section: Triplets, requests: Sequence[Request], built: Built) -> dict[str, Any]:
    """What the record says of the making."""
    return {
        "target": target,
        "requests": section.requests,
        "judge": section.judge.kind,
        "threshold": section.judge.threshold,
        "prompts": len(requests),
        "triplets": len(built.triplets),
        "base_questions": len({each.base_id for each in built.triplets}),
        "by_style": dict(sorted(Counter(each.style for each in built.triplets).items())),
        "none": {reason: getattr(built, reason) for reason in REASONS},
    }


def _why(built: Built, prompts: int) -> str:
    told = [f"{count} {meaning}" for name, meaning in REASONS.items() if (count := getattr(built, name))]
    return f"of {prompts} answers {', '.join(told)}; there is nothing to train on"
