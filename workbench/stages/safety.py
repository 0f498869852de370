"""Safety of a row: what it answers to harmful and to harmless requests, and what judges say of the answers.

Every answer and every verdict is stored, so that another judge or measure can be taken later. An attack
that puts words in the model's mouth is judged by what the model adds. Judge and grader see the request as it
was before it was dressed, and what the answer says: one in the code of its style is read first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from workbench import safety, storage
from workbench.errors import DataError, ModelError
from workbench.evaluation import answers, measurement
from workbench.evaluation.battery import SafetyEntry
from workbench.evaluation.measurement import Measurement
from workbench.recipe.safety import KNOWS_REFUSALS, Guarded, Judge
from workbench.safety import measures, openers
from workbench.safety.attacks import PLAIN, read
from workbench.safety.coherence import quality
from workbench.safety.derta import refusal_token
from workbench.safety.guards.filtering import Filter, judge_generations
from workbench.safety.guards.protocol import Verdict
from workbench.safety.measures import Answer
from workbench.safety.requests import Request
from workbench.stages import answering, grading, judges
from workbench.stages.answering import Stored
from workbench.stages.grading import Graded
from workbench.stages.job import Job

ANSWERS, UNGUARDED, VERDICTS, GRADES = "answers.json", "unguarded.json", "verdicts.json", "grades.json"
TRUTH = "miniworld"  # the judge that is right by definition


def ask(
    job: Job,
    entry: SafetyEntry,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    out: Path,
    parent: Path | None,
) -> None:
    """Write `out/answers.json` and the openers' measurements; what is on disk is not asked again.

    Args:
        job: the row; behind a guard, its parent's answers are filtered.
        entry: what is asked.
        model: the row's.
        tokenizer: the model's own.
        batch_size: requests in one pass.
        out: folder of the row's measurements.
        parent: folder of its parent's, where it has one.

    Raises:
        DataError: the set has nothing to measure on, or a request that cannot be put to the model.
        ModelError: the tokenizer has no chat template.
    """
    parts = safety.divided(entry.requests, job.recipe.seed)
    asked = list(answering.requests(entry, parts["evaluation"], tokenizer))
    if not asked:
        raise DataError(f"request set {entry.requests}: no request is kept to measure on; raise held_out")
    title = f"{job.variant.name}: {entry.requests}"
    put = partial(answering.answer, asked, entry, model, tokenizer, batch_size, title=title)
    stage = job.variant.stage
    if not isinstance(stage, Guarded):
        put(out / ANSWERS)
    elif not (out / ANSWERS).is_file():
        assert parent
        known = parent / ANSWERS
        if not known.is_file():
            known = out / UNGUARDED
            put(known)
        guard = judges.guard(stage.guard, job.recipe, job.store)
        gate = Filter(guard, stage.place, stage.refusal, stage.guard.threshold)
        answering.write(out / ANSWERS, answering.filtered(gate, answering.read(known)))
    refusals = [row.refusal for rows in parts.values() for row in rows if row.refusal]
    _probe(parts["evaluation"], refusals, model, tokenizer, batch_size, out / "safety.refusal_opener.json")


def tell(job: Job, entry: SafetyEntry, out: Path) -> None:
    """Judge `out/answers.json` and write `out/safety.<task>.json` for each measure.

    Raises:
        DataError, ModelError, RecipeError: a judge cannot be had, or cannot judge.
    """
    stored = [_read(row) for row in answering.read(out / ANSWERS)]
    verdicts = _judged(job, entry, stored, out / VERDICTS)
    teller = next(i for i, judge in enumerate(entry.judges) if judge.kind in KNOWS_REFUSALS)
    told = [_told(row, verdicts[0][row.id], verdicts[teller][row.id], entry.judges[0]) for row in stored]
    told = _graded(job, entry, stored, told, out / GRADES)
    protocol = _protocol(entry, stored, teller)
    begun = storage.digest([[row.id, row.prefix] for row in stored if row.put])[:8]
    for task, found in measures.measured(told, protocol, entry.grader.kind if entry.grader else None).items():
        if "_late_" in task:  # another tokenizer cuts answers elsewhere
            found = [replace(each, protocol=f"{each.protocol}; begun {begun}") for each in found]
        measurement.write(out / f"safety.{task}.json", found)
    for task, found in _errors(entry, stored, verdicts, protocol).items():
        measurement.write(out / f"safety.{task}.json", found)


def _judged(job: Job, entry: SafetyEntry, stored: Sequence[Stored], path: Path) -> list[dict[str, Verdict]]:
    """Verdicts of each judge by answer, now or from the file."""
    known = storage.read_json(path) if path.is_file() else []
    for judge in entry.judges[len(known) :]:
        guard = judges.guard(judge, job.recipe, job.store)
        found = judge_generations(guard, [row.bare for row in stored], [row.text for row in stored])
        verdicts = {row.id: asdict(verdict) for row, verdict in zip(stored, found, strict=True)}
        known.append(
            {"judge": guard.name, "kind": judge.kind, "threshold": judge.threshold, "verdicts": verdicts}
        )
        storage.write_json(path, known)
    return [
        {name: Verdict(**{**each, "categories": tuple(each["categories"])}) for name, each in one.items()}
        for one in (judge["verdicts"] for judge in known)
    ]


def _told(row: Stored, danger: Verdict, refusal: Verdict, judge: Judge) -> Answer:
    return Answer(
        id=row.id,
        base_id=row.base_id,
        topics=row.topics,
        style=row.style,
        topics_side=row.topics_side,
        style_side=row.style_side,
        harmful=row.harmful,
        put=row.put,
        coherent=quality(row.text, finished=row.finished).coherent,
        unsafe=danger.is_unsafe(judge.threshold),
        refusal=refusal.refusal,
    )


def _graded(
    job: Job, entry: SafetyEntry, stored: Sequence[Stored], told: Sequence[Answer], path: Path
) -> list[Answer]:
    """The answers with the harm that a grader sees in those to harmful requests, where there is a grader."""
    if entry.grader is None:
        return [*told]
    known = safety.divided(entry.requests, job.recipe.seed)["evaluation"]
    references = {row.bare: row.answer for row in known}
    rows = [
        Graded(
            id=row.id,
            request=row.bare,
            text=row.text,
            coherent=answer.coherent,
            reference=references.get(row.bare),
        )
        for row, answer in zip(stored, told, strict=True)
        if row.harmful
    ]
    grades = grading.grades(job, entry.grader, rows, path)
    return [
        replace(answer, harm=grade.score) if (grade := grades.get(answer.id)) else answer for answer in told
    ]


def _read(row: Stored) -> Stored:
    """The row with what its answer says, where the answer is in the code of its style."""
    return replace(row, text=read(row.text, row.style, row.prompt))


def _protocol(entry: SafetyEntry, stored: Sequence[Stored], teller: int) -> str:
    """How the answers were had and judged; the judges' weights are in the row's fingerprint."""
    asked = [[row.id, row.prompt] for row in stored if not row.put]
    first = entry.judges[0]
    refusal = entry.judges[teller].kind
    return (
        f"requests {entry.requests} ({len(asked)}, {storage.digest(asked)[:8]}); chat template; greedy; "
        f"at most {entry.max_new_tokens} tokens; judge {first.kind} above "
        f"{first.threshold:g}; refusal by {refusal}"
    )


def _errors(
    entry: SafetyEntry, stored: Sequence[Stored], verdicts: Sequence[Mapping[str, Verdict]], protocol: str
) -> dict[str, list[Measurement]]:
    """How often each judge agrees with the one that is right, where there is one."""
    kinds = [judge.kind for judge in entry.judges]
    if TRUTH not in kinds:
        return {}
    bases = {row.id: row.base_id for row in stored}
    labels = {name: each.is_unsafe() for name, each in verdicts[kinds.index(TRUTH)].items()}
    truth = {name: label for name, label in labels.items() if label is not None}
    found = {}
    for number, judge in enumerate(entry.judges):
        if judge.kind != TRUTH:
            again = kinds[:number].count(judge.kind)
            task = f"judge_{judge.kind}{f'_{again + 1}' if again else ''}"
            said = {name: each.is_unsafe(judge.threshold) for name, each in verdicts[number].items()}
            how = f"{protocol}; {judge.kind} above {judge.threshold:g} against {TRUTH}"
            found[task] = measures.judge_error(task, said, truth, bases, how)
    return found


def _probe(
    rows: Sequence[Request],
    refusals: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    path: Path,
) -> None:
    """Write how likely a refusal opens within the harmful answers that come with the requests, or why not."""
    asked = [row for row in rows if row.harmful and row.style == PLAIN and row.answer]
    if path.is_file() or not asked:
        return
    try:
        opener = refusal_token(tokenizer, refusals)
    except (DataError, ModelError) as reason:
        measurement.write(path, [], [{"skipped": str(reason)}])
        return
    prompts = [_encoded(tokenizer, answers.stem(tokenizer, row.prompt)) for row in asked]
    given = [_encoded(tokenizer, row.answer or "") for row in asked]
    mass = openers.opener_mass(model, prompts, given, opener.forms, batch_size=batch_size)
    found = []
    how = f"probability of {json.dumps(opener.text)} behind so many tokens of a harmful answer"
    clusters = {row.id: row.base_id for row in asked}
    for place, position in enumerate(openers.POSITIONS):
        items = {
            row.id: (float(mass[i, place]), 1.0) if position <= len(given[i]) else measures.MISSING
            for i, row in enumerate(asked)
        }
        if any(item != measures.MISSING for item in items.values()):
            name = f"at_{position}"
            found.append(
                Measurement("safety", "refusal_opener", name, items, "mean", True, how, clusters=clusters)
            )
    measurement.write(path, found)


def _encoded(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens
