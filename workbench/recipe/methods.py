"""The settings of methods, one section each; which of them a stage runs, the stage says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.recipe.section import Count, Mixture, Section, Share

TrainingMethod = Literal[
    "full", "replay", "control-llm", "llama-pro", "lora", "l2sp", "ewc", "distill", "freeze"
]
EmbeddingMethod = Literal["translation", "mean", "copy", "random"]
MergeAlgorithm = Literal["linear", "slerp", "ties", "dare"]


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
    train_embeddings: bool = Field(
        default=False, description="train embeddings and output head whole, as a new vocabulary needs"
    )


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


class Alignment(Section):
    """Word translations, learnt from parallel text by IBM Model 1 (Brown et al. 1993)."""

    old: str = Field(description="source in a language that the model knows")
    new: str = Field(description="source whose documents say the same in the new language, one for one")
    rounds: Count = Field(default=5, description="iterations of expectation and maximization")


class Ties(Section):
    """Settings of TIES (arXiv 2306.01708)."""

    keep: float = Field(
        default=0.2, gt=0, le=1, description="share of a tensor's changes that is kept, largest first"
    )


class Dare(Section):
    """Settings of DARE (arXiv 2311.03099)."""

    drop: float = Field(default=0.5, ge=0, lt=1, description="share of the changes that is dropped at random")
