"""DPO, MoGU and Q-resafe: make the pairs of a safety stage, then train on them under TRL and DeepSpeed.

In as many processes as were asked for; what they need to know travels in a request of plain values.
"""

from __future__ import annotations

import json
import shutil
import sys
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench import models, storage, training
from workbench.errors import DataError, WorkbenchError
from workbench.recipe.safety import PAIRWISE, PATCHING, Safety
from workbench.recipe.schema import Recipe
from workbench.retention import lora
from workbench.safety import pairs
from workbench.safety.course import Course, Outcome
from workbench.safety.pairs import Pair
from workbench.stages import curriculum, prepare, train, triplets
from workbench.stages.blueprint import routing
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult

PROGRAM, REQUEST = ("-m", "workbench.stages.preference"), "request.json"
PAIRS = "pairs"  # the folder of what is trained on; gone with the checkpoints when there is a model
MALICIOUS = "triplets"  # the name beside those of the sources


def build(job: Job, out: Path) -> None:
    """Train `job`'s variant into `out`; goes on from the checkpoints that a stopped try left there.

    Raises:
        DataError: an exchange that cannot be told, or a source whose prompts leave no room for an answer.
    """
    if job.variant.method not in PAIRWISE:
        return train.build(job, out)
    stage = job.variant.stage
    assert isinstance(stage, Safety) and job.parent
    tokenizer = job.parent.model_folder
    request = {
        "title": job.variant.name,
        "recipe": job.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "stage": job.variant.stage_index,
        "method": job.variant.method,
        "start_rate": curriculum.start_of(job),
        "start": str(job.parent.model_folder),
        "dtype": job.origin.dtype,
        **_write_pairs(job, stage, models.load_tokenizer(tokenizer), out),
        "out": str(out),
    }
    storage.write_json(out / REQUEST, request)
    if job.recipe.engine.processes == 1:
        execute(request)
    else:
        training.launch([*PROGRAM, str(out / REQUEST)], job.recipe.engine)


def _write_pairs(
    job: Job, stage: Safety, tokenizer: PreTrainedTokenizerBase, out: Path
) -> dict[str, dict[str, Any]]:
    """Write the pairs as tokens, source after source; gives their weights, numbers and what did not fit."""
    recipe, length = job.recipe, stage.sequence_length
    found = triplets.read(job)
    kinds: dict[str, list[Pair]] = {MALICIOUS: pairs.malicious(found)}
    weights = {MALICIOUS: stage.share}
    refusals = [triplet.chosen for triplet in found]
    for name, weight in job.mixture.items() if stage.share < 1 else ():
        weights[name] = (1 - stage.share) * weight
        asked = ceil(stage.steps * stage.batch_size * weights[name])
        turns = prepare.exchanges(job.store, recipe.data[name], recipe, lambda *turns: turns)
        kinds[name] = pairs.harmless(islice(turns, asked), refusals, recipe.seed, name)
    rows: list[dict[str, Any]] = []
    told: dict[str, dict[str, Any]] = {"weights": weights, "sizes": {}, "cut": {}, "left_out": {}}
    for name, some in kinds.items():
        encoded = pairs.encode(some, tokenizer, length)
        if not encoded.rows:
            raise DataError(
                f"{name}: no prompt leaves room for an answer in {length} tokens; raise sequence_length"
            )
        rows += encoded.rows
        sizes = {"sizes": len(encoded.rows), "cut": encoded.cut, "left_out": encoded.left_out}
        for key, value in sizes.items():
            told[key][name] = value
    pairs.write(rows, out / PAIRS)
    return told


def execute(request: dict[str, Any]) -> None:
    """Train and save, on every process alike; process 0 writes."""
    recipe = Recipe.model_validate(request["recipe"])
    stage, section = train.stage_of(recipe, request), recipe.stages[request["stage"]]
    assert isinstance(section, Safety)
    out = Path(request["out"])
    tokenizer = models.load_tokenizer(Path(request["start"]))
    model: PreTrainedModel = models.load(Path(request["start"]), getattr(torch, request["dtype"]))
    models.check_tokenizer(model.config, tokenizer)
    sizes, weights = request["sizes"], request["weights"]
    course = Course(
        rows=pairs.load(out / PAIRS),
        order=pairs.order(sizes, weights, stage.steps, stage.batch_size, recipe.seed),
        stage=stage,
        engine=recipe.engine,
        seed=recipe.seed,
        out=out,
        title=request["title"],
    )
    with measured() as cost:
        model, outcomes, details = _trained(model, tokenizer, course, section, request["method"])
    if not training.is_first_process():
        return
    notes = {"method": request["method"], "pairs": sizes, "weights": weights}
    packed = getattr(model.config, "quantization_config", None)
    bits = {"nominal_bits": packed.bits, "real_bits": packed.real_bits} if packed else {}
    models.save(model, tokenizer, out / "model", notes | bits)
    busy, seen = (sum(each) for each in zip(*(one.busy for one in outcomes), strict=True))
    epochs = {name: stage.steps * stage.batch_size * weights[name] / size for name, size in sizes.items()}
    StageResult(
        sum(outcome.seconds for outcome in outcomes),
        cost.peak_memory_bytes,
        **bits,
        warnings=[*_unfit(request), *(said for outcome in outcomes for said in outcome.told)],
        details={
            "steps": stage.steps,
            "tokens": int(course.tokens[-1]),
            "training_tokens_per_second": seen / busy if busy else None,
            "final_loss": outcomes[-1].loss,
            "trainable_parameters": max(outcome.trainable_parameters for outcome in outcomes),
            "optimizer_bytes": max(outcome.optimizer_bytes for outcome in outcomes),
            "pairs": sizes,
            "epochs": epochs,
            "answers_cut": request["cut"],
            "pairs_left_out": request["left_out"],
            **details,
        },
    ).write(out)
    for folder in ("checkpoints", PAIRS):  # only now is there nothing to go on with
        shutil.rmtree(out / folder, ignore_errors=True)


def _trained(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, course: Course, section: Safety, method: str
) -> tuple[PreTrainedModel, list[Outcome], dict[str, Any]]:
    """The model that a method makes of the start, what its trainings cost, and what is worth recording."""
    from workbench.safety import dpo, mogu, q_resafe  # TRL takes seconds to import

    if method == PATCHING:
        outcome, details = q_resafe.patch(model, tokenizer, course, section.q_resafe)
        return model, [outcome], details
    if method == "dpo":
        finish = lora.wrap(model, section.dpo.lora, course.seed) if section.dpo.lora else None
        outcome = dpo.prefer(model, tokenizer, course, section.dpo)
        return finish(model) if finish else model, [outcome], {}
    routed = models.add_responders(model, routing(section.mogu), course.seed)
    outcomes = [*mogu.teach(routed, course, section.mogu).values()]
    added = models.count_parameters(routed.config) - models.count_parameters(model.config)
    return routed, outcomes, {"added_parameters": added, "routed_tokens": section.mogu.router_tokens}


def _unfit(request: dict[str, Any]) -> list[str]:
    """What a reader must know of pairs that do not fit into a sequence."""
    told = {
        "answers were cut at their end": "cut",
        "pairs were left out, for their prompts fill it": "left_out",
    }
    return [
        f"{sum(request[key].values())} {what}: sequence_length is too short for them"
        for what, key in told.items()
        if any(request[key].values())
    ]


if __name__ == "__main__":
    try:
        execute(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except WorkbenchError as error:
        sys.exit(f"error: {error}")
