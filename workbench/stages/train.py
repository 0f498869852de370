"""Training by the one loop: prepare tokens and the model of the start, then run it.

In as many processes as were asked for; what they need to know travels in a request of plain values.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from workbench import evaluation, models, storage, training
from workbench.data import TokenFile
from workbench.errors import WorkbenchError
from workbench.recipe.quantize import Quantize
from workbench.recipe.schema import Engine, Recipe
from workbench.recipe.training import Continued, TrainingStage
from workbench.retention import control_llm
from workbench.stages import curriculum, derta, evaluate, method, ordering, prepare, sifting, tune
from workbench.stages.job import Job, training_of
from workbench.stages.measure import measured
from workbench.stages.result import StageResult

PROGRAM, REQUEST = ("-m", "workbench.stages.train"), "request.json"
SHARE_STEPS = 4  # batches over which the mean share of a Control LLM's copies is taken


def build(job: Job, out: Path) -> None:
    """Train `job`'s variant into `out`; goes on from the checkpoints that a stopped try left there."""
    tokenizer = job.parent.model_folder if job.parent else prepare.tokenizer(job.store, job.recipe)
    refused = derta.token_files(job, tokenizer) if job.variant.method == "derta" else {}
    files = refused | {
        name: ordering.training_tokens(job, name, tokenizer) for name in job.mixture if name not in refused
    }
    request = {
        "title": job.variant.name,
        "recipe": job.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "stage": job.variant.stage_index,
        "method": job.variant.method,
        "bits": job.variant.bits,
        "group_size": job.variant.group_size,
        "mixture": job.mixture,
        "tokens": {name: str(file.folder.resolve()) for name, file in files.items()},
        "triplets": derta.counts(job, tokenizer) if refused else {},
        "sifted": sifting.counts(job),
        **curriculum.needs(job, tokenizer),
        "start_rate": curriculum.start_of(job),
        "tokenizer": str(tokenizer),
        "parent": str(job.parent.model_folder) if job.parent else None,
        "start": str(_start(job)) if job.parent else None,
        "fisher": str(method.fisher(job)),
        "dtype": job.origin.dtype,
        "texts": {
            name: str(file.folder) for name, file in evaluate.texts(job.recipe, job.store, tokenizer).items()
        },
        "out": str(out),
    }
    storage.write_json(out / REQUEST, request)
    if job.recipe.engine.processes == 1:
        execute(request)
    else:
        training.launch([*PROGRAM, str(out / REQUEST)], job.recipe.engine)


def _start(job: Job) -> Path:
    """The folder of the model that the loop starts with."""
    return tune.start(job) if job.variant.kind == "quantize" else method.start(job)


def processes_command(engine: Engine) -> list[str]:
    """What starts the processes of a training, for people to look at; nothing where there is only one.

    Raises:
        RecipeError: the hostfile does not fit the recipe.
    """
    return training.command([*PROGRAM, REQUEST], engine) if engine.processes > 1 else []


def execute(request: dict[str, Any]) -> None:
    """Train and save, on every process alike; process 0 writes."""
    recipe = Recipe.model_validate(request["recipe"])
    stage = stage_of(recipe, request)
    out = Path(request["out"])
    tokenizer = models.load_tokenizer(Path(request["tokenizer"]))
    if request["start"]:
        model = models.load(Path(request["start"]), getattr(torch, request["dtype"]))
    else:
        assert recipe.model.new
        model = models.new(recipe.model.new, recipe.seed)
    models.check_tokenizer(model.config, tokenizer)
    mixture = curriculum.mixture(recipe, stage, request)
    handed, section = method.Handed(), recipe.stages[request["stage"]]
    if isinstance(stage, Continued):
        handed = method.hand(model, stage, request["method"], request, recipe.seed)
    elif isinstance(section, Quantize):
        handed = tune.hand(model, section.at(request["group_size"]), request, recipe.seed)
    with measured() as cost:
        result = training.train(
            model,
            mixture,
            stage,
            recipe.engine,
            recipe.seed,
            out,
            penalty=handed.penalty,
            anchor=handed.anchor,
            probe=_probe(recipe, stage, tokenizer, request["texts"]),
            steering=curriculum.steering(recipe, stage, mixture, request),
            title=request["title"],
        )
    if training.is_first_process():
        shares = control_llm.copy_shares(model, [mixture.batch(step) for step in range(SHARE_STEPS)])
        notes = {"method": request["method"], "tokens": result.tokens, "mixture": request["mixture"]}
        finished = handed.finish(model)
        report = handed.report(finished) if handed.report else None
        if report:
            notes |= {"bits": report.nominal_bits, "real_bits": report.real_bits}
        models.save(finished, tokenizer, out / "model", notes)
        StageResult(
            result.seconds,
            cost.peak_memory_bytes,
            nominal_bits=report.nominal_bits if report else None,
            real_bits=report.real_bits if report else None,
            warnings=[*([result.stopped] if result.stopped else []), *sifting.told(request["sifted"])],
            details={
                "steps": result.steps,
                "tokens": result.tokens,
                "training_tokens_per_second": result.tokens_per_second,
                "final_loss": result.final_loss,
                "trainable_parameters": result.trainable_parameters,
                "optimizer_bytes": result.optimizer_bytes,
                **({"copy_shares": shares} if shares else {}),
                **({"layers": [asdict(layer) for layer in report.layers]} if report else {}),
                "epochs": mixture.epochs(result.steps),
                **curriculum.told(mixture, stage, result.steps),
                **request["triplets"],
                **({"sifted": request["sifted"]} if request["sifted"] else {}),
            },
        ).write(out)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)  # only now is there nothing to go on with


def stage_of(recipe: Recipe, request: dict[str, Any]) -> TrainingStage:
    """The training of a request's method, with a number where its schedule has to start."""
    stage = training_of(recipe.stages[int(request["stage"])], request["method"])
    assert stage
    if request["start_rate"] is None:
        return stage
    schedule = stage.schedule.model_copy(update={"start": request["start_rate"]})
    return stage.model_copy(update={"schedule": schedule})


def _probe(
    recipe: Recipe, stage: TrainingStage, tokenizer: Any, texts: dict[str, str]
) -> evaluation.Probe | None:
    if recipe.evaluate is None or stage.probe_every is None:
        return None
    battery = evaluation.load_battery(recipe.evaluate.battery)
    files = {name: TokenFile(Path(folder)) for name, folder in texts.items()}
    return evaluation.Probe(battery, tokenizer, files, evaluate.metadata(recipe), stage.probe_limit)


if __name__ == "__main__":
    try:
        execute(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except WorkbenchError as error:
        sys.exit(f"error: {error}")
