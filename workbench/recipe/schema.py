"""The recipe: one flat YAML file is one run, read top to bottom in the order in which it happens.

These classes are the configuration of the whole workbench: an area takes the section that concerns
it, so that a setting is named, documented and checked in one place. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

QuantizationMethod = Literal["rtn", "gptq"]
TrainingMethod = Literal[
    "full", "replay", "control-llm", "llama-pro", "lora", "l2sp", "ewc", "distill", "freeze"
]
MergeAlgorithm = Literal["linear", "slerp", "ties", "dare"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Share = Annotated[float, Field(ge=0, le=1)]


def _whole(value: Any) -> Any:
    """Let `tokens: 1e9` be the whole number that it says."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _sums_to_one(weights: dict[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    if any(weight < 0 for weight in weights.values()) or abs(total - 1) > 1e-6:
        raise ValueError(f"weights must be at least 0 and sum to 1; they sum to {total:g}")
    return weights


# The bounds stand before the validator, so that they reach the JSON schema.
Count = Annotated[int, Field(gt=0), BeforeValidator(_whole)]
Index = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Bits = Annotated[int, Field(ge=1, le=8), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole)]
Mixture = Annotated[dict[str, float], Field(min_length=1), AfterValidator(_sums_to_one)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _exactly_one(section: Section, *keys: str) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise ValueError(f"needs exactly one of {', '.join(keys)}; found {' and '.join(given) or 'none'}")


class NewModel(Section):
    """A LLaMA-3 architecture with random weights and a byte-level BPE tokenizer of its own."""

    vocab_size: Count = Field(description="tokens in the vocabulary, special tokens included")
    hidden_size: Count
    intermediate_size: Count = Field(description="width of the SwiGLU hidden layer")
    layers: Count
    heads: Count = Field(description="query heads; must divide hidden_size")
    kv_heads: Count = Field(description="key and value heads (grouped-query attention); must divide heads")
    context: Count = Field(description="longest sequence in tokens")
    rope_theta: float = Field(default=500_000.0, gt=0)
    tie_embeddings: bool = True
    tokenizer_sources: tuple[str, ...] = Field(
        min_length=1, description="data sources the tokenizer is trained on"
    )

    @model_validator(mode="after")
    def _divides(self) -> NewModel:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads {self.heads} does not divide hidden_size {self.hidden_size}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        return self


class Model(Section):
    """Where the run starts: a folder, a hub id with a pinned revision, or a new model."""

    path: str | None = Field(
        default=None, description="a Hugging Face folder; may begin with $WORKBENCH_DATA"
    )
    hub: str | None = Field(default=None, description="a model id on the Hugging Face hub")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the hub model"
    )
    new: NewModel | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="dtype in memory")

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        _exactly_one(self, "path", "hub", "new")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: pin the 40-digit commit of the hub model")
        return self


class Chat(Section):
    """A document is one exchange: the chat template around a user turn and an assistant turn."""

    prompt: str = Field(description="the key that holds the user's turn in jsonl, parquet and hub rows")
    response: str = Field(description="the key that holds the assistant's turn")


class Source(Section):
    """A named body of text: built in, local, or a hub data set with a pinned revision."""

    miniworld: Literal["base", "base_heldout", "new", "new_heldout"] | None = Field(
        default=None, description="a corpus of the built-in miniature world, generated from the recipe's seed"
    )
    path: str | None = Field(
        default=None,
        description="a .txt, .jsonl or .parquet file or a folder of them; may begin with $WORKBENCH_DATA",
    )
    hub: str | None = Field(default=None, description="a data set id on the Hugging Face hub")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the hub data set"
    )
    subset: str | None = Field(default=None, description="configuration name of the hub data set")
    split: str | None = Field(default=None, description="split of the hub data set")
    field: str = Field(
        default="text", description="the key that holds the text in jsonl, parquet and hub rows"
    )
    document: Literal["paragraph", "line", "file"] = Field(
        default="paragraph",
        description="what one document is in a .txt file; paragraphs are parted by blank lines. "
        "file also joins the rows of a hub data set by blank lines, as published perplexities do",
    )
    chat: Chat | None = Field(
        default=None,
        description="take exchanges instead of texts, told by the chat template of the model's tokenizer",
    )
    documents: tuple[Index, Index] | None = Field(
        default=None,
        description="use only documents start..stop-1 of the source, so that text can be held out",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        _exactly_one(self, "miniworld", "path", "hub")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: pin the 40-digit commit of the hub data set")
        if self.documents and self.documents[0] >= self.documents[1]:
            raise ValueError(
                f"documents {list(self.documents)} is not a range: write [start, stop] with start below stop"
            )
        return self

    @model_validator(mode="after")
    def _exchanges(self) -> Source:
        if self.chat is None:
            return self
        if self.miniworld or (self.path or "").endswith(".txt"):
            raise ValueError("chat reads rows of .jsonl, .parquet or the hub; this source has none")
        if unused := sorted({"field", "document"} & self.model_fields_set):
            raise ValueError(f"chat names the keys that are read: leave out {' and '.join(unused)}")
        return self


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


class Replay(Section):
    """Mix old text into the new (Ibrahim et al., arXiv 2403.08763)."""

    ratio: float = Field(gt=0, lt=1, description="share of the training tokens that is old text")
    mixture: Mixture = Field(description="weight of each old source; weights sum to 1")


class MethodSettings(Section):
    """What every method that trains other parameters, or with another loss, may want of its own."""

    learning_rate: float | None = Field(
        default=None, gt=0, description="peak rate under this method; default: the stage's"
    )


class ControlLlm(MethodSettings):
    """Trainable copies beside frozen blocks (Control LLM, arXiv 2501.10979)."""

    blocks: Count = Field(description="blocks to copy, evenly spread; must divide the model's layers")
    structure: Literal["concat", "stack", "hybrid"] = Field(
        default="concat",
        description="copies beside their blocks, behind them, or alternately behind and beside",
    )
    interpolator: Literal["lerp", "slerp", "dlerp", "dlerpin", "moe", "prog", "proj"] = Field(
        default="lerp", description="how the outputs of a block and its copy are mixed"
    )
    factor: float | list[float] | None = Field(
        default=0.0,
        description="the copy's share is sigmoid(factor), one for all layers or one for each; for dlerp and "
        "dlerpin at the start only; null: the copy alone",
    )
    learn_factor: bool = Field(default=False, description="train the factor of each layer")
    divergence: Literal["none", "mse", "cosine", "norm-cosine"] = Field(
        default="mse", description="what keeps the output of a copy close to that of its block"
    )
    alpha: float | Literal["interpolation"] = Field(
        default=1.0, description="weight of the divergence; interpolation: the copy's share, token by token"
    )
    freeze_blocks: bool = Field(default=True, description="train the copies only, not the blocks of the base")
    freeze_embeddings: bool = Field(default=True, description="embeddings, final norm and output head stay")


class LlamaPro(MethodSettings):
    """Trainable blocks behind frozen ones, doing nothing at first (LLaMA Pro, arXiv 2401.02415)."""

    blocks: Count = Field(description="blocks to add, evenly spread; must divide the model's layers")


class Lora(MethodSettings):
    """Low-rank updates of all linears (LoRA, arXiv 2106.09685), merged into the weights at the end."""

    rank: Count = 16
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    rank_stabilized: bool = Field(
        default=False, description="scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732)"
    )
    dropout: Share = 0.0


class L2sp(MethodSettings):
    """A quadratic pull towards the weights of the start (L2-SP, arXiv 1802.01483)."""

    strength: float = Field(default=0.01, gt=0, description="lambda of lambda/2 |theta - theta_0|^2")


class Ewc(MethodSettings):
    """The same pull, weighted by the Fisher information of old text (EWC, arXiv 1612.00796)."""

    strength: float = Field(gt=0, description="lambda of lambda/2 sum F (theta - theta_0)^2")
    mixture: Mixture = Field(description="old text on which the Fisher information is measured")
    sequences: Count = Field(default=256, description="sequences that it is the mean over")


class Distill(MethodSettings):
    """Stay close to the predictions of the start: beta KL(p_start || p), token by token."""

    beta: float = Field(default=1.0, gt=0)
    text: Literal["new", "replay"] = Field(
        default="new",
        description="where: on all text of the mixture, or on replayed old text, which is mixed in",
    )


class Freeze(MethodSettings):
    """Train only what the patterns leave free."""

    patterns: list[str] = Field(
        min_length=1, description="parameters that stay, by name; * is any text, as in model.layers.0.*"
    )


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


class Ties(Section):
    """Settings of TIES (arXiv 2306.01708)."""

    keep: float = Field(
        default=0.2, gt=0, le=1, description="share of a tensor's changes that is kept, largest first"
    )


class Dare(Section):
    """Settings of DARE (arXiv 2311.03099)."""

    drop: float = Field(default=0.5, ge=0, lt=1, description="share of the changes that is dropped at random")


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


class Calibration(Section):
    """Text that calibrated methods look at."""

    mixture: Mixture = Field(description="weight of each data source; weights sum to 1")
    sequences: Count = 128
    sequence_length: Count = 2048
    documents: Literal["joined", "apart"] = Field(
        default="joined",
        description="joined: a sequence is one text, as published results have it; apart: cut at the ends of "
        "documents, for models trained on packed short documents",
    )


class Gptq(Section):
    """Settings of GPTQ (Frantar et al., arXiv 2210.17323)."""

    damping: float = Field(
        default=0.01, gt=0, description="added to the Hessian's diagonal, as a share of its mean"
    )
    act_order: bool = Field(default=False, description="quantize columns by falling diagonal of the Hessian")
    static_groups: bool = Field(
        default=False, description="fix all group grids before the first column is quantized"
    )
    block_size: Count = Field(default=128, description="columns between two lazy updates of the rest")
    true_sequential: bool = Field(
        default=True, description="re-collect inputs after each subset of a block's linears"
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
    data: dict[Name, Source] = {}
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
