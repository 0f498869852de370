"""The glue of a training's mixture: its plan, what steers it, and what there is to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from workbench import data, evaluation, models
from workbench.data import Mixture, TokenFile
from workbench.data.curriculum import Controller
from workbench.errors import RecipeError
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.perplexity import perplexity
from workbench.recipe.curricula import Bandit, DoReMi, Scheduled, Topics
from workbench.recipe.inputs import Source
from workbench.recipe.schema import Recipe
from workbench.recipe.training import TrainingStage
from workbench.stages import prepare
from workbench.stages.job import Job, mixture_under
from workbench.training import Steering, log
from workbench.training.steering import Measure

BATCH = 32  # sequences of held-out text in one forward pass


def needs(job: Job, tokenizer: Path) -> dict[str, Any]:
    """What a request says about the curriculum: held-out texts, and the folder of the reference."""
    section = job.training_stage.curriculum
    if not isinstance(section, Topics | DoReMi):
        return {"held_out": {}, "reference": None}
    sources = job.recipe.data
    files = {
        topic: prepare.token_file(job.store, text, sources[text], job.recipe, tokenizer)
        for topic, text in section.texts.items()
    }
    reference = job.earlier[section.reference] if isinstance(section, DoReMi) else None
    return {
        "held_out": {topic: str(file.folder.resolve()) for topic, file in files.items()},
        "reference": str(reference.model_folder) if reference else None,
    }


def start_of(job: Job) -> float | None:
    """The rate before the warm-up as a share of the peak, where the parent's training has to say it.

    Raises:
        RecipeError: the parent has not logged a learning rate.
    """
    stage, parent = job.training_stage, job.parent
    if stage.schedule.start != "last":
        return None
    assert parent
    rates = [
        row["learning_rate"] for row in log.read(parent.folder / "metrics.jsonl") if "learning_rate" in row
    ]
    if not rates:
        raise RecipeError(
            f"{job.variant.name}: schedule.start is last, but {parent.variant.name} was not trained in this "
            "run, so its last learning rate is not known; write a share of the peak"
        )
    return float(rates[-1] / stage.learning_rate)


def mixture(recipe: Recipe, stage: TrainingStage, request: Mapping[str, Any]) -> Mixture:
    """The mixture of a training."""
    files = {name: TokenFile(Path(folder)) for name, folder in request["tokens"].items()}
    tokens = data.pass_tokens(files, stage.reading, stage.sequence_length)
    return Mixture(
        files,
        request["mixture"],
        recipe.seed,
        stage.batch_size,
        stage.sequence_length,
        plan=data.plan(_under(stage, request["method"]), request["mixture"], tokens),
        reading=stage.reading,
        when_dry=stage.when_dry,
    )


def _under(stage: TrainingStage, method: str) -> TrainingStage:
    """The stage with what a method adds to the mixture in every point of its schedule."""
    section = stage.curriculum
    if not isinstance(section, Scheduled):
        return stage
    points = [
        point.model_copy(update={"mixture": mixture_under(stage, method, point.mixture)})
        for point in section.points
    ]
    return stage.model_copy(update={"curriculum": section.model_copy(update={"points": points})})


def steered(stage: TrainingStage) -> bool:
    """Whether the weights depend on measurements."""
    return isinstance(stage.curriculum, Controller)


def replay_history(mixed: Mixture, points: Iterable[Mapping[str, Any]]) -> None:
    """Give a new mixture the changes of weights that a training has logged."""
    for point in points:
        if "curriculum" in point:
            mixed.reweigh(point["step"], point["curriculum"]["weights"])


def told(mixed: Mixture, stage: TrainingStage, steps: int) -> dict[str, Any]:
    """What a result says of a curriculum: dry sources, changes, and the mean weights, DoReMi's result."""
    last = steps - 1
    details: dict[str, Any] = {"dry": dry} if steps and (dry := mixed.dry(last)) else {}
    if steered(stage):
        every = [mixed.planned(step) for step in range(steps)]
        mean = {name: sum(weights[name] for weights in every) / steps for name in mixed.names}
        details |= {"history": mixed.history, "mean_weights": mean}
    return details


def steering(
    recipe: Recipe, stage: TrainingStage, mixed: Mixture, request: Mapping[str, Any]
) -> Steering | None:
    """What steers the mixture; None where nothing does."""
    section = stage.curriculum
    if isinstance(section, Bandit):
        return Steering(section, stage, mixed, None, {})
    if not isinstance(section, Topics | DoReMi):
        return None
    texts = {topic: recipe.data[text] for topic, text in section.texts.items()}
    measure = _measure(request["held_out"], texts, stage.sequence_length, section.windows)
    reference = {}
    if request["reference"]:
        model = models.load(Path(request["reference"]), getattr(torch, request["dtype"])).eval()
        torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
        reference = measure(model)
    return Steering(section, stage, mixed, measure, reference)


def _measure(folders: Mapping[str, str], texts: Mapping[str, Source], length: int, windows: int) -> Measure:
    """Loss of the first windows of each text, in nats a token, documents apart as in training."""
    files = {topic: TokenFile(Path(folder)) for topic, folder in folders.items()}

    def measure(model: PreTrainedModel) -> dict[str, float]:
        losses = {}
        for topic, file in files.items():
            entry = TextEntry(
                name="held-out", text=texts[topic], sequence_length=length, windows=windows, documents="apart"
            )
            found = perplexity(model, file, entry, BATCH, topic, quiet=True)[0]
            losses[topic] = evaluation.value(found.items.values(), "mean")
        return losses

    return measure
