"""Pretrain and cpt: prepare tokens and what the method starts from, then run the one training loop.

In as many processes as were asked for; what they need to know travels in a request of plain values.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from workbench import evaluation, models, storage, training
from workbench.data import Mixture, TokenFile
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Cpt, Engine, Pretrain, Recipe
from workbench.retention import control_llm
from workbench.stages import evaluate, method, prepare
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult

PROGRAM, REQUEST = ("-m", "workbench.stages.train"), "request.json"
PROBE_DOCUMENTS = 64
SHARE_STEPS = 4  # batches over which the mean share of a Control LLM's copies is taken


def build(job: Job, out: Path) -> None:
    """Train `job`'s variant into `out`; goes on from the checkpoints that a stopped try left there."""
    tokenizer = job.parent.model_folder if job.parent else prepare.tokenizer(job.store, job.recipe)
    sources = job.recipe.data
    request = {
        "title": job.variant.name,
        "recipe": job.recipe.model_dump(mode="json", by_alias=True),
        "stage": job.variant.stage_index,
        "method": job.variant.method,
        "mixture": job.mixture,
        "tokens": {
            name: str(prepare.token_file(job.store, name, sources[name], job.recipe.seed, tokenizer).folder)
            for name in job.mixture
        },
        "tokenizer": str(tokenizer),
        "parent": str(job.parent.model_folder) if job.parent else None,
        "start": str(method.start(job)) if job.parent else None,
        "fisher": str(method.fisher(job)),
        "dtype": job.origin.dtype,
        "texts": {
            name: str(file.folder) for name, file in evaluate.texts(job.recipe, job.store, tokenizer).items()
        },
        "out": str(out),
    }
    if job.recipe.engine.processes == 1:
        execute(request)
    else:
        storage.write_json(out / REQUEST, request)
        training.launch([*PROGRAM, str(out / REQUEST)], job.recipe.engine)


def processes_command(engine: Engine) -> list[str]:
    """What starts the processes of a training, for people to look at; nothing where there is only one.

    Raises:
        RecipeError: the hostfile does not fit the recipe.
    """
    return training.command([*PROGRAM, REQUEST], engine) if engine.processes > 1 else []


def execute(request: dict[str, Any]) -> None:
    """Train and save, on every process alike; process 0 writes."""
    recipe = Recipe.model_validate(request["recipe"])
    stage = recipe.stages[request["stage"]]
    assert isinstance(stage, Pretrain | Cpt)
    if isinstance(stage, Cpt):
        stage = stage.under(request["method"])
    out = Path(request["out"])
    tokenizer = models.load_tokenizer(Path(request["tokenizer"]))
    if request["start"]:
        model = models.load(Path(request["start"]), getattr(torch, request["dtype"]))
    else:
        assert recipe.model.new
        model = models.new(recipe.model.new, recipe.seed)
    models.check_tokenizer(model.config, tokenizer)
    files = {name: TokenFile(Path(folder)) for name, folder in request["tokens"].items()}
    mixture = Mixture(files, request["mixture"], recipe.seed, stage.batch_size, stage.sequence_length)
    handed = method.Handed()
    if isinstance(stage, Cpt):
        handed = method.hand(model, stage, request["method"], request, recipe.seed)
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
            title=request["title"],
        )
    if training.is_first_process():
        shares = control_llm.copy_shares(model, [mixture.batch(step) for step in range(SHARE_STEPS)])
        notes = {"method": request["method"], "tokens": result.tokens, "mixture": request["mixture"]}
        models.save(handed.finish(model), tokenizer, out / "model", notes)
        StageResult(
            result.seconds,
            cost.peak_memory_bytes,
            warnings=[result.stopped] if result.stopped else [],
            details={
                "steps": result.steps,
                "tokens": result.tokens,
                "training_tokens_per_second": result.tokens_per_second,
                "final_loss": result.final_loss,
                "trainable_parameters": result.trainable_parameters,
                "optimizer_bytes": result.optimizer_bytes,
                **({"copy_shares": shares} if shares else {}),
                "epochs": mixture.epochs(result.steps),
            },
        ).write(out)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)  # only now is there nothing to go on with


def _probe(
    recipe: Recipe, stage: Pretrain | Cpt, tokenizer: Any, texts: dict[str, str]
) -> evaluation.Probe | None:
    if recipe.evaluate is None or stage.probe_every is None:
        return None
    battery = evaluation.load_battery(recipe.evaluate.battery)
    files = {name: TokenFile(Path(folder)) for name, folder in texts.items()}
    return evaluation.Probe(battery, tokenizer, files, evaluate.metadata(recipe), PROBE_DOCUMENTS)


if __name__ == "__main__":
    try:
        execute(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except WorkbenchError as error:
        sys.exit(f"error: {error}")
