"""The recipe: one flat YAML file is one run, read top to bottom in the order in which it happens.

These classes are the configuration of the whole workbench: an area takes the section that concerns
it, so that a setting is named, documented and checked in one place. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workbench.recipe.inputs import Model, Source
from workbench.recipe.methods import (
    Calibration,
    ControlLlm,
    Dare,
    Distill,
    Ewc,
    Freeze,
    Gptq,
    L2sp,
    LlamaPro,
    Lora,
    MergeAlgorithm,
    QuantizationMethod,
    Replay,
    Ties,
    TrainingMethod,
)
from workbench.recipe.section import Bits, Count, Mixture, Name, Section, Seed, Share


class Schedule(Section):
    """Learning rate over the steps of one stage, as shares of the stage and of the peak rate."""

    kind: Literal["constant", "cosine", "wsd"] = "cosine"
    warmup: Share = Field(
        default=0.05, description="share of the steps spent rising linearly from 0 to the peak"
    )
    decay: Share = Field(default=0.2, description="wsd only: share of the steps spent falling at the end")
    final: Share = Field(default=0.1, description="last rate as a share of the peak")

    @model_validator(mode="after")
    def _fits(self) -> Schedule:
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} are shares of one stage: at most 1 together"
            )
        return self


class Floor(Section):
    """What a training must not lose: it ends when a probed score falls under a share of where it began."""

    metric: str = Field(description="a score of the probe, such as retained.facts.acc; higher is better")
    share: float = Field(gt=0, le=1, description="lowest score allowed, as a share of that before training")
    then: Literal["stop", "roll-back"] = Field(
        default="stop",
        description="keep the weights of that step, or those of the last probe above the floor",
    )


class TrainingStage(Section):
    """What pretrain and cpt have in common: one training loop on DeepSpeed."""

    mixture: Mixture = Field(description="weight of each data source; weights sum to 1")
    tokens: Count = Field(description="tokens to train on; rounded down to whole batches")
    batch_size: Count = Field(
        description="sequences in one global batch, over all processes and accumulation steps"
    )
    micro_batch_size: Count | None = Field(
        default=None,
        description="sequences in one forward pass of one process; default: as many as the batch needs",
    )
    sequence_length: Count
    learning_rate: float = Field(gt=0, description="peak rate of AdamW")
    schedule: Schedule = Schedule()
    weight_decay: float = Field(default=0.1, ge=0, description="on matrices only, not on norms")
    betas: tuple[Share, Share] = (0.9, 0.95)
    clip: float = Field(default=1.0, gt=0, description="largest global gradient norm")
    checkpoint_every: Count = Field(default=500, description="steps between resumable checkpoints")
    probe_every: Count | None = Field(
        default=None,
        description="steps between probes of the evaluation battery, besides those at 0, 1, 2, 4 and 8 % "
        "of the steps and at the end; default: no probes",
    )
    floor: Floor | None = Field(default=None, description="what ends the training early; needs probe_every")

    @model_validator(mode="after")
    def _one_batch(self) -> TrainingStage:
        if self.floor is not None and self.probe_every is None:
            raise ValueError("floor needs probe_every: the probe measures what must not fall")
        if self.tokens < self.batch_size * self.sequence_length:
            raise ValueError(
                f"tokens {self.tokens} is less than one batch "
                f"({self.batch_size} x {self.sequence_length} = {self.batch_size * self.sequence_length})"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps, one a global batch."""
        return self.tokens // (self.batch_size * self.sequence_length)


class Pretrain(TrainingStage):
    """Train the new model from scratch."""

    kind: Literal["pretrain"]
    name: Name = "base"


class Cpt(TrainingStage):
    """Continual pre-training: teach the model new text, one row per method."""

    kind: Literal["cpt"]
    name: Name = "cpt"
    start: str | None = Field(
        default=None, alias="from", description="variant to go on from; default: the last one"
    )
    methods: list[TrainingMethod] = Field(default=["full"], min_length=1)
    replay: Replay | None = Field(default=None, description="settings of the method replay")
    control_llm: ControlLlm | None = Field(default=None, description="settings of the method control-llm")
    llama_pro: LlamaPro | None = Field(default=None, description="settings of the method llama-pro")
    lora: Lora = Field(default=Lora(), description="settings of the method lora")
    l2sp: L2sp = Field(default=L2sp(), description="settings of the method l2sp")
    ewc: Ewc | None = Field(default=None, description="settings of the method ewc")
    distill: Distill = Field(default=Distill(), description="settings of the method distill")
    freeze: Freeze | None = Field(default=None, description="settings of the method freeze")

    def settings_of(self, method: str) -> Section | None:
        """The section of a method; None where it has none, as full."""
        section: Section | None = getattr(self, method.replace("-", "_"), None)
        return section

    def under(self, method: str) -> Cpt:
        """The stage as a method trains it: at the method's own peak rate where it has one."""
        rate = getattr(self.settings_of(method), "learning_rate", None)
        return self.model_copy(update={"learning_rate": rate}) if rate else self

    def replayed(self, method: str) -> bool:
        """Whether the method mixes old text into the new."""
        return method == "replay" or (method == "distill" and self.distill.text == "replay")

    @model_validator(mode="after")
    def _settings(self) -> Cpt:
        for method in self.methods:
            if method != "full" and self.settings_of(method) is None:
                raise ValueError(f"the method {method} needs the section {method.replace('-', '_')}")
            if self.replayed(method) and self.replay is None:
                raise ValueError(f"the method {method} needs the section replay for old text to mix in")
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


class Quantize(Section):
    """Post-training weight quantization: one row per method and bit width."""

    kind: Literal["quantize"]
    name: Name = "quantize"
    start: str | None = Field(
        default=None, alias="from", description="variant to go on from; default: the last one"
    )
    methods: list[QuantizationMethod] = Field(min_length=1)
    bits: list[Bits] = Field(min_length=1)
    group_size: Count | Literal["channel"] = Field(
        default=128,
        description="weights along the input that share a scale; channel = one group per output row",
    )
    symmetric: bool = False
    mse_grid: bool = Field(default=False, description="shrink each group's range to the least |error|^2.4")
    calibration: Calibration | None = Field(default=None, description="needed by gptq")
    gptq: Gptq = Field(default=Gptq(), description="settings of the method gptq")

    @model_validator(mode="after")
    def _calibrated(self) -> Quantize:
        if "gptq" in self.methods and self.calibration is None:
            raise ValueError("gptq needs calibration: name a mixture of data sources")
        return self


class Load(Section):
    """Bring another finished model into the run, as a row without a parent."""

    kind: Literal["load"]
    name: Name
    model: Model


Stage = Annotated[Pretrain | Cpt | Merge | MergeBack | Quantize | Load, Field(discriminator="kind")]


class Evaluate(Section):
    """What is measured, and on which rows."""

    battery: Name = Field(description="a file of evals/batteries, without .yaml")
    rows: list[str] | Literal["all"] = Field(default="all", description="variants to evaluate")


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
