"""A job: one variant of a recipe with everything that determines it, reduced to a fingerprint.

Two jobs with the same fingerprint make the same model, in whatever recipe they stand; the store
builds it once. Nothing here loads a model, so a finished run is recognised quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench import safety, storage
from workbench.errors import RecipeError
from workbench.recipe import Variant, variants
from workbench.recipe.curricula import DoReMi, Topics
from workbench.recipe.inputs import Model
from workbench.recipe.methods import ControlLlm, LlamaPro
from workbench.recipe.quantization import ADAPTED, CALIBRATED, TUNED, UNGROUPED
from workbench.recipe.quantize import Quantize
from workbench.recipe.safety import Guarded, Safety
from workbench.recipe.schema import Merge, MergeBack, Recipe, Stage, Vocabulary
from workbench.recipe.training import Continued, Pretrain, TrainingStage
from workbench.retention import replay
from workbench.safety import derta
from workbench.stages.identity import (
    VERSIONS,
    judge_identity,
    model_identity,
    source_identity,
    writer_identity,
)
from workbench.storage import Store

# What may differ between two tries of one training.
SPREAD = {"checkpoint_every", "micro_batch_size"}


@dataclass(frozen=True)
class Job:
    """One variant to make, the one that it is made from, and all before it by name."""

    recipe: Recipe
    variant: Variant
    parent: Job | None
    store: Store
    earlier: dict[str, Job] = field(default_factory=dict, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """Where the finished work lies: `model/`, `result.json` and the stage's own files."""
        return self.store.path(self.fingerprint)

    @property
    def model_folder(self) -> Path:
        """The finished model."""
        return self.folder / "model"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that determines the variant."""
        return storage.digest(
            {
                "kind": self.variant.kind,
                "version": VERSIONS[self.variant.kind],
                "settings": self.settings,
                "parent": self.parent.fingerprint if self.parent else None,
            }
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the recipe says about this variant and nothing about its siblings."""
        stage, recipe = self.variant.stage, self.recipe
        if isinstance(stage, Safety):
            return self._safety(stage)
        if isinstance(stage, Guarded):
            return {
                "guard": judge_identity(stage.guard, recipe),
                **stage.model_dump(include={"place", "refusal"}),
            }
        if isinstance(stage, Pretrain | Continued):
            return self._training
        if isinstance(stage, Vocabulary):
            return self._vocabulary(stage)
        if isinstance(stage, Merge):
            algorithm = getattr(stage, self.variant.algorithm or "", None)
            return {
                "algorithm": self.variant.algorithm,
                "weight": self.variant.weight,
                "algorithm_settings": algorithm.model_dump() if algorithm else None,
                "seed": recipe.seed,
            }
        if isinstance(stage, MergeBack):
            return {}
        if isinstance(stage, Quantize):
            return self._quantization(stage)
        return model_identity(self.model)

    @property
    def _training(self) -> dict[str, Any]:
        """Settings of a training; how it is spread over processes only rounds differently."""
        stage, recipe = self.training_stage, self.recipe
        own = stage.settings_of(self.variant.method) if isinstance(stage, Continued) else None
        names = set(self.mixture) & set(recipe.data)  # the rows of derta come from its triplets
        if self.variant.method == "ewc" and isinstance(stage, Continued) and stage.ewc:
            names |= set(stage.ewc.mixture)
        section = stage.curriculum
        names |= set(section.texts.values() if isinstance(section, Topics | DoReMi) else ())
        reference = self.earlier[section.reference].fingerprint if isinstance(section, DoReMi) else None
        return {
            **stage.model_dump(include=set(TrainingStage.model_fields) - SPREAD - {"mixture"}),
            "method": self.variant.method,
            "method_settings": own.model_dump() if own else None,
            "mixture": self.mixture,
            "reference": reference,
            "precision": recipe.engine.precision,
            "seed": recipe.seed,
            "dtype": self.origin.dtype,
            "new": recipe.model.new.model_dump() if self.parent is None and recipe.model.new else None,
            "sources": self.identities(names),
        }

    def _safety(self, stage: Safety) -> dict[str, Any]:
        """Settings of a safety retrofit."""
        return {
            **self._training,
            "method_settings": stage.settings_of(self.variant.method).model_dump(),
            "triplets": self.triplets_fingerprint,
            "size": self.variant.triplets,
            "share": stage.share,
        }

    @property
    def target(self) -> Job:
        """Whose answers the triplets of a safety stage reject."""
        stage = self.variant.stage
        assert isinstance(stage, Safety) and self.parent
        name = stage.triplets.target
        return self.earlier[name] if name else self.parent

    @cached_property
    def triplets_fingerprint(self) -> str:
        """Hash of all that determines the triplets of a safety stage, which all its variants share."""
        stage = self.variant.stage
        assert isinstance(stage, Safety)
        section = stage.triplets
        return storage.digest(
            {
                "kind": "triplets",
                "version": VERSIONS["triplets"],
                "target": self.target.fingerprint,
                "dtype": self.origin.dtype,
                "requests": safety.requests_identity(section.requests, self.recipe.seed),
                "judge": judge_identity(section.judge, self.recipe),
                "chosen": writer_identity(section.chosen, self.recipe) if section.chosen else None,
                "max_new_tokens": section.max_new_tokens,
                "most": stage.most_triplets,
            }
        )

    def _vocabulary(self, stage: Vocabulary) -> dict[str, Any]:
        """Settings of a new vocabulary; parallel text counts where the embeddings come from it."""
        output = stage.output or self.variant.method
        section = stage.alignment if "translation" in (self.variant.method, output) else None
        names = {*stage.sources, *([section.old, section.new] if section else [])}
        return {
            "method": self.variant.method,
            "output": output,
            **stage.model_dump(include={"tokens", "replace"}),
            "alignment": section.model_dump() if section else None,
            "sources": self.identities(names),
            "dtype": self.origin.dtype,
            "seed": self.recipe.seed,
        }

    def _quantization(self, stage: Quantize) -> dict[str, Any]:
        """Settings of a quantization; text counts where the method looks at it."""
        method = self.variant.method
        own = stage.settings_of(method)
        calibration = stage.calibration if method in CALIBRATED else None
        text = stage.calibration if stage.allocation else calibration
        tuned = {"tuning": self._training} if method in TUNED else {}
        rounded = {"rounding": stage.rounding_of(method)} if method in ADAPTED else {}
        return {
            "method": method,
            "bits": self.variant.bits,
            "group_size": None if method in UNGROUPED else self.variant.group_size,
            **stage.model_dump(include={"symmetric", "mse_grid"}),
            "method_settings": own.model_dump() if own else None,
            "true_sequential": stage.gptq.true_sequential if calibration else None,
            "on_singular": stage.on_singular if calibration else None,
            "calibration": text.model_dump() if text else None,
            **({"allocation": stage.allocation.model_dump()} if stage.allocation else {}),
            **tuned,
            **rounded,
            "sources": self.identities(set(text.mixture if text else ())),
            "seed": self.recipe.seed,
        }

    @property
    def training_stage(self) -> TrainingStage:
        """The training of this variant, at the rate of the variant's method."""
        stage = self.variant.stage
        assert stage
        training = training_of(stage, self.variant.method)
        assert training
        return training

    @property
    def model(self) -> Model:
        """The recipe's section that a load stage brings in."""
        return getattr(self.variant.stage, "model", self.recipe.model)

    @property
    def origin(self) -> Model:
        """The recipe's section of the model that this variant goes back to; gives the dtype in memory."""
        return self.parent.origin if self.parent else self.model

    @property
    def mixture(self) -> dict[str, float]:
        """Weights of the sources that this variant is trained on."""
        stage = self.training_stage
        return mixture_under(stage, self.variant.method, stage.mixture)

    def identities(self, names: Iterable[str]) -> dict[str, Any]:
        """What determines the text of these sources, and of those of a new tokenizer."""
        sources = set(names) | set(self.recipe.model.new.tokenizer_sources if self.recipe.model.new else ())
        return {name: source_identity(self.recipe.data[name], self.recipe) for name in sorted(sources)}


def training_of(stage: Stage, method: str) -> TrainingStage | None:
    """What a stage trains under one of its methods; None where nothing is trained."""
    if isinstance(stage, Quantize):
        return stage.tuning if method in TUNED else None
    if isinstance(stage, Continued):
        return stage.under(method)
    if isinstance(stage, Safety):
        return stage.model_copy(update={"learning_rate": stage.rate_of(method)})
    return stage if isinstance(stage, Pretrain) else None


def mixture_under(stage: TrainingStage, method: str, weights: Mapping[str, float]) -> dict[str, float]:
    """A mixture of a stage with what a method adds to it: old text, or the rows of derta."""
    if isinstance(stage, Continued) and stage.replay and stage.replayed(method):
        return replay.mixture(weights, stage.replay)
    if isinstance(stage, Safety) and method == "derta":
        return derta.mixture(weights, stage.share)
    return dict(weights)


def expansion(job: Job) -> ControlLlm | LlamaPro | None:
    """The section of a method that adds blocks to the model."""
    stage = job.variant.stage
    if isinstance(stage, Continued) and job.variant.method in ("control-llm", "llama-pro"):
        return stage.control_llm if job.variant.method == "control-llm" else stage.llama_pro
    return None


def jobs_by_name(recipe: Recipe, store: Store) -> dict[str, Job]:
    """One job per variant, by name, in the order in which they are made."""
    made: dict[str, Job] = {}
    for variant in variants(recipe):
        parent = made[variant.parent] if variant.parent else None
        made[variant.name] = Job(recipe, variant, parent, store, dict(made))
    return made


def job_of(recipe: Recipe, name: str, store: Store) -> Job:
    """The job of one variant of a recipe.

    Raises:
        RecipeError: the recipe makes no such variant.
    """
    made = jobs_by_name(recipe, store)
    if name not in made:
        raise RecipeError(f"writer.variant: no variant {name}; {recipe.name} makes {', '.join(made)}")
    return made[name]
