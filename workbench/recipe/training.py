"""Training stages of a recipe: one loop, its schedule, what ends it early, and the methods it runs under."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workbench.recipe.curricula import Curriculum, Reading
from workbench.recipe.methods import (
    ControlLlm,
    Distill,
    Ewc,
    Freeze,
    L2sp,
    LlamaPro,
    Lora,
    Replay,
    TrainingMethod,
)
from workbench.recipe.section import Count, Mixture, Name, Section, Share


class Schedule(Section):
    """Learning rate over the steps of one stage, as shares of the stage and of the peak rate."""

    kind: Literal["constant", "cosine", "wsd", "infinite"] = Field(
        default="cosine",
        description="cosine: rise and fall; wsd: rise, plateau, fall; infinite: rise, fall to a plateau that "
        "can go on for ever, and fall at the end",
    )
    start: Share | Literal["last"] = Field(
        default=0.0, description="rate before the rise; last: that at which the parent's training ended"
    )
    warmup: Share = Field(default=0.05, description="share of the steps spent rising linearly to the peak")
    cooldown: Share = Field(default=0.3, description="infinite only: share spent falling to the plateau")
    plateau: Share = Field(default=0.5, description="infinite only: rate of the plateau")
    decay: Share = Field(
        default=0.2, description="wsd and infinite: share of the steps spent falling at the end"
    )
    shape: Literal["linear", "cosine", "sqrt", "exponential"] = Field(
        default="linear", description="wsd only: how it falls; sqrt is 1 - sqrt(share of the decay)"
    )
    final: Share = Field(default=0.1, description="last rate as a share of the peak")

    @model_validator(mode="after")
    def _fits(self) -> Schedule:
        parts = {"wsd": ("warmup", "decay"), "infinite": ("warmup", "cooldown", "decay")}.get(self.kind, ())
        if sum(getattr(self, part) for part in parts) > 1:
            raise ValueError(f"{', '.join(parts)} are shares of one stage: at most 1 together")
        if self.final == 0 and (self.kind == "infinite" or self.shape == "exponential"):
            raise ValueError("final: an exponential fall never reaches 0; write a share above 0")
        if self.kind == "infinite" and not self.final <= self.plateau:
            raise ValueError(f"final {self.final:g} is above the plateau {self.plateau:g}")
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
    """What all training has in common: the text, the optimizer and its schedule."""

    mixture: Mixture = Field(description="weight of each data source; weights sum to 1")
    curriculum: Curriculum | None = Field(
        default=None, description="how the weights change on the way; default: not at all"
    )
    reading: dict[str, Reading] = Field(
        default={}, description="how sources are read; default: whole, shuffled, as often as asked"
    )
    when_dry: Literal["repeat", "stop", "redistribute"] = Field(
        default="repeat",
        description="what happens when a source has been read as often as its reading allows: start it over, "
        "end the training, or give its weight to the others",
    )
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
    probe_limit: Count = Field(
        default=64, description="questions of each task, and sequences of each text, in one probe"
    )
    floor: Floor | None = Field(default=None, description="what ends the training early; needs probe_every")

    @model_validator(mode="after")
    def _one_batch(self) -> TrainingStage:
        if unknown := sorted(set(self.reading) - set(self.mixture)):
            raise ValueError(f"reading: {', '.join(unknown)} is not in the mixture")
        if self.when_dry == "repeat" and any(reading.epochs for reading in self.reading.values()):
            raise ValueError(
                "reading: epochs ends a source, but when_dry is repeat; say stop or redistribute"
            )
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


class Continued(TrainingStage):
    """What goes on from a finished model under some of the methods of forgetting control, one row each."""

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

    def under(self, method: str) -> Continued:
        """The stage as a method trains it: at the method's own peak rate where it has one."""
        rate = getattr(self.settings_of(method), "learning_rate", None)
        return self.model_copy(update={"learning_rate": rate}) if rate else self

    def replayed(self, method: str) -> bool:
        """Whether the method mixes old text into the new."""
        return method == "replay" or (method == "distill" and self.distill.text == "replay")

    @model_validator(mode="after")
    def _settings(self) -> Continued:
        for method in self.methods:
            if method != "full" and self.settings_of(method) is None:
                raise ValueError(f"the method {method} needs the section {method.replace('-', '_')}")
            if self.replayed(method) and self.replay is None:
                raise ValueError(f"the method {method} needs the section replay for old text to mix in")
        return self


class Cpt(Continued):
    """Continual pre-training: teach the model new text."""

    kind: Literal["cpt"]
    name: Name = "cpt"


class Sft(Continued):
    """Supervised fine-tuning: of exchanges the answers are learnt, and of other sources all text."""

    kind: Literal["sft"]
    name: Name = "sft"
