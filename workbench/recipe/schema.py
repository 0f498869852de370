"""The recipe: one flat YAML file is one run, read top to bottom in the order in which it happens.

These classes are the configuration of the whole workbench: an area takes the section that concerns
it, so that a setting is named, documented and checked in one place. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workbench.recipe.inputs import Model, Source
from workbench.recipe.methods import (
    Alignment,
    Dare,
    EmbeddingMethod,
    MergeAlgorithm,
    Ties,
)
from workbench.recipe.preparation import Preparation
from workbench.recipe.quantize import Quantize
from workbench.recipe.safety import Guarded, Safety
from workbench.recipe.section import Count, Name, Section, Seed, Share
from workbench.recipe.training import Cpt, Pretrain, Sft


class Vocabulary(Section):
    """A tokenizer for a new language, and embeddings for its tokens: one row per way to initialise them."""

    kind: Literal["vocabulary"]
    name: Name = "vocabulary"
    start: str | None = Field(
        default=None, alias="from", description="variant to go on from; default: the last one"
    )
    sources: list[str] = Field(min_length=1, description="text that the new tokens are trained on")
    tokens: Count = Field(description="tokens to add, or those of a new tokenizer, special tokens included")
    replace: bool = Field(
        default=False, description="a tokenizer of its own, instead of tokens behind the old"
    )
    methods: list[EmbeddingMethod] = Field(
        min_length=1,
        description="translation: of the tokens that a word aligns with; mean: of the old tokens that spell "
        "it; copy: of the old token with the same text, else the mean of all; random: drawn as the old are",
    )
    output: EmbeddingMethod | None = Field(
        default=None,
        description="how the output embeddings begin, where they are not tied; default: likewise",
    )
    alignment: Alignment | None = Field(default=None, description="needed by translation")

    @model_validator(mode="after")
    def _aligned(self) -> Vocabulary:
        if "translation" in (*self.methods, self.output) and self.alignment is None:
            raise ValueError("translation needs alignment: name parallel text")
        return self


class Merge(Section):
    """Go back part of the way after training: one row per algorithm and weight of the trained model."""

    kind: Literal["merge"]
    name: Name = "merge"
    start: str | None = Field(
        default=None,
        alias="from",
        description="trained variant to merge with the one it was made from; default: the last one",
    )
    algorithms: list[MergeAlgorithm] = Field(default=["linear"], min_length=1)
    weights: list[Share] = Field(
        min_length=1, description="share of the way from the base to the trained model"
    )
    ties: Ties = Field(default=Ties(), description="settings of the algorithm ties")
    dare: Dare = Field(default=Dare(), description="settings of the algorithm dare")


class MergeBack(Section):
    """Fold the copies of a Control LLM into their blocks, so that stock transformers loads the model."""

    kind: Literal["merge-back"]
    name: Name = "merged-back"
    start: str | None = Field(
        default=None, alias="from", description="variant of the method control-llm; default: the last one"
    )


class Load(Section):
    """Bring another finished model into the run, as a row without a parent."""

    kind: Literal["load"]
    name: Name
    model: Model


Stage = Annotated[
    Pretrain | Cpt | Sft | Safety | Guarded | Vocabulary | Merge | MergeBack | Quantize | Load,
    Field(discriminator="kind"),
]


class Evaluate(Section):
    """What is measured, and on which rows."""

    battery: Name = Field(description="a file of evals/batteries, without .yaml")
    rows: list[str] | Literal["all"] = Field(default="all", description="variants to evaluate")
    against: dict[str, str] = Field(
        default={},
        description="rows to compare with one more row, besides those that they were made from",
    )
    published: Name | None = Field(
        default=None, description="a file of evals/published, without .yaml, to hold the rows against"
    )


class Engine(Section):
    """DeepSpeed settings that a user tunes; the rest is derived."""

    processes: Count = Field(default=1, description="one per accelerator, on all nodes together")
    nodes: Count = Field(default=1, description="machines that share the processes evenly")
    launcher: Literal["deepspeed", "slurm"] = Field(
        default="deepspeed", description="slurm: through srun, inside an allocation of as many nodes"
    )
    hostfile: str | None = Field(
        default=None,
        description="DeepSpeed's list of nodes, a line `host slots=8` each; reached by ssh (pdsh)",
    )
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload: Literal["none", "optimizer", "parameters"] = "none"
    precision: Literal["float32", "autocast", "bfloat16"] = Field(
        default="float32",
        description="autocast: float32 weights, bfloat16 products; bfloat16: weights too, float32 master",
    )
    compile: bool = False
    activation_checkpointing: bool = False

    @model_validator(mode="after")
    def _nodes(self) -> Engine:
        if self.processes % self.nodes:
            raise ValueError(f"{self.processes} processes do not divide among {self.nodes} nodes")
        if self.nodes > 1 and self.launcher == "deepspeed" and self.hostfile is None:
            raise ValueError("several nodes need a hostfile, or launcher: slurm")
        return self


class Recipe(Section):
    """One run, from the model that it starts with to the sheet that it ends with."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$", max_length=128)]
    description: str = Field(description="one line for `make list`")
    seed: Seed = 1
    replicates: Count = Field(
        default=1,
        description="run everything under so many seeds, from `seed` on; rows pool their questions, and "
        "intervals over seeds stand beside",
    )
    model: Model
    data: dict[Name, Source] = Field(default={}, description="named sources of text")
    prepare: dict[Name, Preparation] = Field(
        default={}, description="sources cleaned and tagged, for other sources to read"
    )
    stages: list[Stage] = Field(default=[], description="in the order in which they run; none: only evaluate")
    evaluate: Evaluate | None = None
    engine: Engine = Engine()
    expect: dict[str, tuple[float, float]] = Field(
        default={},
        description="measured ranges, as `<variant>.<metric>: [low, high]`; outside of one, the run fails",
    )

    @model_validator(mode="after")
    def _does_something(self) -> Recipe:
        if not self.stages and self.evaluate is None:
            raise ValueError("does nothing: needs stages, or evaluate, or both")
        return self
