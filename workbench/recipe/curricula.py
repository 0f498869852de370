"""How the mixture of a training changes on the way, and how each of its sources is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workbench.recipe.section import Count, Index, Mixture, Section, Share


class Point(Section):
    """The mixture at a number of tokens."""

    tokens: Index = Field(description="tokens of this stage trained on so far")
    mixture: Mixture = Field(description="weight of each source of the stage; those left out have 0")


class Scheduled(Section):
    """Weights that are known beforehand: those of the stage at 0 tokens, then those of the points."""

    kind: Literal["linear", "staged"] = Field(
        description="linear: along straight lines between the points; staged: from one point to the next"
    )
    points: list[Point] = Field(min_length=1, description="in order of their tokens")

    @model_validator(mode="after")
    def _ordered(self) -> Scheduled:
        tokens = [point.tokens for point in self.points]
        if tokens != sorted(set(tokens)) or tokens[0] == 0:
            raise ValueError(f"points must rise in tokens, from above 0; found {tokens}")
        return self


class Temperature(Section):
    """Weights in proportion to (tokens of the source)^(1 / temperature); 1 keeps their natural shares."""

    kind: Literal["temperature"]
    temperature: float = Field(gt=0)


class UniMax(Section):
    """Equal weights, but no source is read more often than so many times (UniMax, arXiv 2304.09151)."""

    kind: Literal["unimax"]
    epochs: float = Field(gt=0, description="most passes over a source")


class Measuring(Section):
    """What every controller does: measure now and then, and set the weights anew."""

    every: Count = Field(description="steps between two updates of the weights")
    floor: Share = Field(default=0.01, description="smallest weight of a source")


class Topics(Measuring):
    """More of the topics that were forgotten since the last measurement (Llama-3-SynE, arXiv 2407.18743)."""

    kind: Literal["topics"]
    texts: dict[str, str] = Field(
        min_length=1, description="for each source that is a topic, the source of its held-out text"
    )
    step_size: float = Field(default=0.5, gt=0, lt=1, description="largest change of a weight, as a share")
    importance: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="of topics, 1 where none is given"
    )
    measure: Literal["loss", "perplexity"] = "loss"
    windows: Count = Field(default=32, description="sequences of each held-out text")
    groups: list[list[str]] = Field(
        default=[],
        description="topics whose weights keep their sum, as those of one language; default: all topics",
    )


class DoReMi(Measuring):
    """More of what a reference model knows better (DoReMi, arXiv 2305.10429), group DRO on held-out text."""

    kind: Literal["doremi"]
    texts: dict[str, str] = Field(
        min_length=1, description="for each source, the source of its held-out text"
    )
    reference: str = Field(description="variant whose losses are the reference")
    step_size: float = Field(default=1.0, gt=0, description="eta")
    smoothing: Share = Field(default=1e-3, description="share of the uniform weights mixed in")
    windows: Count = Field(default=32, description="sequences of each held-out text")


class Bandit(Measuring):
    """More of what has the highest training loss (online data mixing by EXP3, arXiv 2312.02406)."""

    kind: Literal["bandit"]
    smoothing: Share = Field(default=0.9, description="share of the old in the moving average of the reward")


Curriculum = Annotated[
    Scheduled | Temperature | UniMax | Topics | DoReMi | Bandit, Field(discriminator="kind")
]


class Reading(Section):
    """How one source is read."""

    tokens: Count | None = Field(
        default=None, description="tokens of one pass: a part of the source (strategy I); default: all"
    )
    resample: Literal["fixed", "dynamic"] = Field(
        default="fixed", description="each pass over the same part, or over a part drawn anew (strategy III)"
    )
    order: Literal["shuffled", "easy-to-hard", "hard-to-easy"] = Field(
        default="shuffled",
        description="documents by their perplexity under the model that the stage goes on from",
    )
    epochs: float | None = Field(
        default=None, gt=0, description="passes after which the source is dry; default: 1"
    )

    @model_validator(mode="after")
    def _one_order(self) -> Reading:
        if self.tokens is None and self.resample == "dynamic":
            raise ValueError("resample: dynamic draws a part of the source; say how large, with tokens")
        if self.tokens is not None and self.order != "shuffled":
            raise ValueError("a part of a source is drawn at random; leave out tokens, or order")
        return self
