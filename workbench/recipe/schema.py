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
from workbench.recipe.quantization import (
    ALLOCATED,
    CALIBRATED,
    FIXED_BITS,
    TUNED,
    UNGROUPED,
    Allocation,
    Awq,
    Billm,
    Calibration,
    DbLlm,
    Gptq,
    GroupSize,
    Hqq,
    Int8,
    IrQlora,
    Nf4,
    PbLlm,
    Qlora,
    QuantizationMethod,
    Quip,
    SlimLlm,
    SmoothQuant,
)
from workbench.recipe.section import Count, Name, Section, Seed, Share, Width
from workbench.recipe.training import Cpt, Pretrain, TrainingStage


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


class Quantize(Section):
    """Post-training weight quantization: one row per method, bit width and group size."""

    kind: Literal["quantize"]
    name: Name = "quantize"
    start: str | None = Field(
        default=None, alias="from", description="variant to go on from; default: the last one"
    )
    methods: list[QuantizationMethod] = Field(min_length=1)
    bits: list[Width] = Field(
        min_length=1,
        description="nominal bits a weight, 1 to 8; between two whole numbers for pb-llm only. With "
        "allocation: real bits a weight, scales included",
    )
    group_size: GroupSize = Field(
        default=128,
        description="weights along the input that share a scale; channel = one group per output row; "
        f"{', '.join(sorted(UNGROUPED))} have layouts of their own",
    )
    groups: list[GroupSize] | None = Field(
        default=None, min_length=1, description="several group sizes, one row each, instead of group_size"
    )
    symmetric: bool = False
    mse_grid: bool = Field(default=False, description="shrink each group's range to the least |error|^2.4")
    calibration: Calibration | None = Field(
        default=None, description=f"needed by {', '.join(sorted(CALIBRATED))}"
    )
    allocation: Allocation | None = Field(
        default=None, description=f"widths by linear; for {', '.join(sorted(ALLOCATED))}; needs calibration"
    )
    tuning: TrainingStage | None = Field(
        default=None, description=f"the training of {', '.join(sorted(TUNED))}"
    )
    on_singular: Literal["error", "more_damping", "rtn"] = Field(
        default="error",
        description="what happens where a Hessian cannot be factored: the run ends; ten times as much "
        "damping, until it can; or the matrix is rounded as if inputs were independent",
    )
    gptq: Gptq = Field(default=Gptq(), description="settings of the method gptq")
    awq: Awq = Field(default=Awq(), description="settings of the method awq")
    smoothquant: SmoothQuant = Field(default=SmoothQuant(), description="settings of the method smoothquant")
    quip: Quip = Field(default=Quip(), description="settings of the method quip")
    pb_llm: PbLlm = Field(default=PbLlm(), description="settings of the method pb-llm")
    billm: Billm = Field(default=Billm(), description="settings of the method billm")
    db_llm: DbLlm = Field(default=DbLlm(), description="settings of the method db-llm")
    qlora: Qlora = Field(default=Qlora(), description="settings of the method qlora")
    ir_qlora: IrQlora = Field(default=IrQlora(), description="settings of the method ir-qlora")
    slim_llm: SlimLlm = Field(default=SlimLlm(), description="settings of the method slim-llm")
    hqq: Hqq = Field(default=Hqq(), description="settings of the method hqq")
    nf4: Nf4 = Field(default=Nf4(), description="settings of the method nf4")
    int8: Int8 = Field(default=Int8(), description="settings of the method int8")

    def settings_of(self, method: str) -> Section | None:
        """The section of a method; None where it has none, as rtn."""
        section: Section | None = getattr(self, method.replace("-", "_"), None)
        return section

    def group_sizes(self, method: str) -> list[GroupSize]:
        """The group sizes that a method fans out over."""
        return [self.group_size] if self.groups is None or method in UNGROUPED else self.groups

    def at(self, group_size: GroupSize | None) -> Quantize:
        """The section with one of its group sizes as the only one."""
        return self.model_copy(update={"group_size": group_size or self.group_size, "groups": None})

    @model_validator(mode="after")
    def _settings(self) -> Quantize:
        # A written recipe says its defaults too.
        if self.groups is not None and self.group_size != Quantize.model_fields["group_size"].default:
            raise ValueError("say group_size, or groups, not both")
        for method in self.methods:
            if method in CALIBRATED and self.calibration is None:
                raise ValueError(f"{method} needs calibration: name a mixture of data sources")
            if method in TUNED and self.tuning is None:
                raise ValueError(f"{method} needs tuning: say on what and how long it is trained")
            if self.allocation and method not in ALLOCATED:
                raise ValueError(
                    f"allocation is for {', '.join(sorted(ALLOCATED))}; give {method} a stage of its own"
                )
            for bits in self.bits:
                self._check_width(method, bits)
        if self.allocation and self.calibration is None:
            raise ValueError("allocation needs calibration: text on which sensitivity is measured")
        return self

    def _check_width(self, method: str, bits: float) -> None:
        only = FIXED_BITS.get(method)
        if only is not None and bits != only:
            raise ValueError(
                f"{method} has {only} bits, found {bits}; give it a stage of its own with bits: [{only}]"
            )
        if method == "pb-llm" and not 1 < bits < self.pb_llm.salient_bits:
            raise ValueError(
                f"pb-llm mixes weights of 1 and of {self.pb_llm.salient_bits} bits, found bits {bits}; "
                "write a number between, such as 1.7"
            )
        low, high = (2, 8) if method == "smoothquant" else (2, 7)
        narrow = method == "smoothquant" or (method == "slim-llm" and self.slim_llm.mixed)
        if narrow and not low <= bits <= high:
            raise ValueError(
                f"{method} has {low} to {high} bits, found {bits}; give the others another stage"
            )
        if method != "pb-llm" and self.allocation is None and bits != int(bits):
            raise ValueError(f"{method} has whole bits, found {bits}; only pb-llm takes a mean such as 1.7")


class Load(Section):
    """Bring another finished model into the run, as a row without a parent."""

    kind: Literal["load"]
    name: Name
    model: Model


Stage = Annotated[
    Pretrain | Cpt | Vocabulary | Merge | MergeBack | Quantize | Load, Field(discriminator="kind")
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
