"""Preference triplets of a safety stage (Egida, arXiv 2502.13603): the target answers, a judge tells.

All methods and sizes of a stage share them. A judge sees a request as it was before it was dressed, and what
the answer says where it is in the code of its style; the answer as it stands is what is rejected. Prompts are
in one random order, so that the triplets of a smaller size are the first ones of a larger, and where sizes
are named no more are asked than the largest needs: as many as it has triplets, then twice as many, and so on.
Answers, verdicts and replies are kept batch by batch, each in a file of its own, so a making that was stopped
goes on at its batch.
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

from workbench import models, safety, storage
from workbench.errors import DataError
from workbench.progress import progress
from workbench.recipe.safety import Safety, Triplets
from workbench.recipe.schema import Recipe
from workbench.safety import Request, triplets
from workbench.safety.attacks import read as read_code
from workbench.safety.guards import Guard, judge_generations
from workbench.safety.triplets import Built, Candidate, Prompt, Triplet
from workbench.stages import judges, leaks, writers
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
    section, most = stage.triplets, stage.most_triplets
    requests = prompts(section, job.recipe)
    asked = len(requests) if most is None else most
    while True:
        asked = min(len(requests), CHUNK * -(-asked // CHUNK))
        built = _built(job, requests[:asked], section, out)
        if asked == len(requests) or (most and len(built.triplets) >= most):
            break
        asked *= 2
    storage.write_json(out / COUNTS, _counts(job.target.variant.name, section, requests[:asked], built))
    if not built.triplets:
        raise DataError(f"no triplet for {job.target.variant.name}: {_why(built, len(requests))}")
    triplets.write(out / TRIPLETS, built.triplets)


def _built(job: Job, requests: Sequence[Request], section: Triplets, out: Path) -> Built:
    """The triplets of some requests; what is known of the first ones is not worked out again."""
    answered = _answers(job.target, requests, section, out)
    guard = judges.guard(section.judge, job.recipe, job.store)
    told = [read_code(text, each.style, each.prompt) for each, text in zip(requests, answered, strict=True)]
    bare = [each.bare for each in requests]
    unsafe = _verdicts(guard, bare, told, out / "verdicts", "judging answers")
    threshold = section.judge.threshold
    wanted = [score is not None and score > threshold for score in unsafe]
    replies = _chosen(job, requests, wanted, section, out)
    scores = _verdicts(guard, bare, [text for _, text in replies], out / "chosen-verdicts", "judging replies")
    judges.forget()
    offered = [
        [Candidate(source, text, score)] if text.strip() else []
        for (source, text), score in zip(replies, scores, strict=True)
    ]
    return triplets.build(
        [_prompt(each) for each in requests], answered, unsafe, offered, judge=guard.name, threshold=threshold
    )


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
    leaks.check_requests(harmful, recipe)
    random.Random(f"triplets/{recipe.seed}").shuffle(harmful)
    return harmful


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


def _chosen(
    job: Job, requests: Sequence[Request], wanted: Sequence[bool], section: Triplets, out: Path
) -> list[tuple[str, str]]:
    """Who refuses each request, and how: its own refusal, or a writer's reply to it, undressed.

    Nobody is asked for what is not wanted, nor twice about one request; its reply is then empty.
    """
    if section.chosen is None:
        pairs = zip(requests, wanted, strict=True)
        return [(section.requests, (each.refusal or "") if needed else "") for each, needed in pairs]
    known: dict[str, str] = {}
    write: writers.Write | None = None

    def reply(start: int) -> list[list[str]]:
        nonlocal write
        part = zip(requests[start : start + CHUNK], wanted[start : start + CHUNK], strict=True)
        new = list(dict.fromkeys(each.bare for each, needed in part if needed and each.bare not in known))
        if new and write is None:
            write = writers.of(job.store, section, job.recipe)
        said = write(new, job.recipe.seed) if write and new else []
        return [[text, each.text or ""] for text, each in zip(new, said, strict=True)]

    for start in range(0, len(requests), CHUNK):
        known |= dict(_chunk(out / "replies", start, reply))
    writer = section.chosen.variant or section.chosen.path or section.chosen.model
    return [
        (str(writer), known[each.bare] if needed else "")
        for each, needed in zip(requests, wanted, strict=True)
    ]


def _kept(
    folder: Path, total: int, work: Callable[[int], list[Any]], advance: Callable[[int], None] | None = None
) -> list[Any]:
    """The results of all chunks, in their order."""
    made = []
    for start in range(0, total, CHUNK):
        part = _chunk(folder, start, work)
        made += part
        if advance:
            advance(len(part))
    return made


def _chunk(folder: Path, start: int, work: Callable[[int], list[Any]]) -> list[Any]:
    """The results of a chunk, worked out now or in a try before, which left them in their file."""
    path = folder / f"{start:08d}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_json(path, work(start))
    made: list[Any] = storage.read_json(path)
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
