"""The settings of quantization methods, one section each, in the letters of their papers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.recipe.section import Bits, Count, Mixture, Section, Share

QuantizationMethod = Literal[
    "rtn",
    "gptq",
    "awq",
    "smoothquant",
    "quip",
    "pb-llm",
    "billm",
    "db-llm",
    "qlora",
    "ir-qlora",
    "slim-llm",
    "hqq",
    "nf4",
    "int8",
]
GroupSize = Count | Literal["channel"]

# Nominal bits of methods that have one width only.
FIXED_BITS: dict[str, int] = {"billm": 1, "db-llm": 2, "nf4": 4, "qlora": 4, "ir-qlora": 4, "int8": 8}
# Methods that look at calibration text.
CALIBRATED = frozenset({"gptq", "awq", "smoothquant", "quip", "pb-llm", "billm", "slim-llm"})
# Methods whose scales have a layout of their own, so that group_size does not concern them.
UNGROUPED = frozenset({"smoothquant", "quip", "nf4", "qlora", "ir-qlora", "int8"})
# Methods that are trained after rounding, through the one loop.
TUNED = frozenset({"db-llm", "qlora", "ir-qlora"})
# Those of them that train updates beside weights that are rounded first, as nf4 rounds.
ADAPTED = frozenset({"qlora", "ir-qlora"})
# Methods whose linears may differ in width.
ALLOCATED = frozenset({"rtn", "gptq", "awq", "hqq"})


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


class Allocation(Section):
    """Widths that differ from linear to linear, within a budget of real bits, by measured sensitivity.

    Measuring takes the whole model in the memory of the device, which quantizing does not.
    """

    widths: list[Bits] = Field(default=[2, 3, 4, 6, 8], min_length=2, description="what a linear may have")
    sequences: Count = Field(
        default=8, description="calibration sequences on which the sensitivity of each linear is measured"
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


class Awq(Section):
    """Settings of AWQ (Lin et al., arXiv 2306.00978)."""

    ratios: Count = Field(default=20, description="exponents r = 0, 1/n, 2/n, ... that the search tries")
    duo_scaling: bool = Field(
        default=False, description="scales x^r / w^(1-r), which look at the weights too, instead of x^r"
    )
    clip: bool = Field(default=True, description="search the clipping of each group, but not of q and k")


class SmoothQuant(Section):
    """Settings of SmoothQuant (Xiao et al., arXiv 2211.10438): weights and activations in integers."""

    alpha: Share = Field(
        default=0.5, description="share of the difficulty that moves to the weights; 0.85 for LLaMA-3"
    )
    activation_bits: Bits | None = Field(
        default=None, description="width of the inputs, scaled token by token; default: that of the weights"
    )


class Quip(Section):
    """Settings of QuIP (Chee et al., arXiv 2307.13304)."""

    transform: Literal["kronecker", "hadamard"] = Field(
        default="kronecker",
        description="the random rotations: two orthogonal factors, or signs and a Hadamard matrix (QuIP#, "
        "arXiv 2402.04396)",
    )
    rounding: Literal["ldlq", "ldlq-rg"] = Field(
        default="ldlq", description="column by column with feedback; -rg: ordered, then greedy passes"
    )
    greedy_passes: Count = Field(default=9, description="most passes of ldlq-rg")
    rescale: bool = Field(default=True, description="balance weights and Hessian channel by channel first")
    damping: float = Field(
        default=0.01, gt=0, description="added to the Hessian's diagonal, as a share of its mean"
    )


class PbLlm(Section):
    """Settings of PB-LLM (Shang et al., arXiv 2310.00034); bits say how many weights are salient."""

    saliency: Literal["hessian", "magnitude"] = Field(
        default="hessian", description="what makes a weight salient: w^2 / U_ii^2, or |w|"
    )
    salient_bits: Bits = 8
    statistics: Literal["optimal", "published"] = Field(
        default="optimal",
        description="mean and scale over binarized weights alone; published: with zeros at salient ones",
    )
    damping: float = Field(
        default=0.01, gt=0, description="added to the Hessian's diagonal, as a share of its mean"
    )


class Billm(Section):
    """Settings of BiLLM (Huang et al., arXiv 2402.04291); group_size is its block of columns."""

    search_on: Literal["saliency", "weight"] = Field(
        default="saliency",
        description="what salient columns and break-points are searched on: the saliency, as in the "
        "published code, or the weights, as in the paper",
    )
    salient_columns: Count = Field(default=49, description="most salient columns in a block")
    damping: float = Field(
        default=0.01, gt=0, description="added to the Hessian's diagonal, as a share of its mean"
    )


class DbLlm(Section):
    """Settings of DB-LLM (Chen et al., arXiv 2402.11960): two binary planes, scales tuned by distillation.

    The rate of its tuning is relative to a scale; 5e-3 is a good start.
    """

    gamma: float = Field(
        default=0.1,
        ge=0,
        description="how much ambiguous tokens count: (entropy / log V)^gamma; our definition",
    )
    distillation: float = Field(
        default=1.0,
        ge=0,
        description="weight of the distillation, beside 1 for the cross entropy of the text",
    )


class Qlora(Section):
    """Settings of QLoRA (Dettmers et al., arXiv 2305.14314); the rounding is that of nf4."""

    rank: Count = 64
    alpha: float = Field(default=16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: Share = 0.0


class IrQlora(Section):
    """Settings of IR-QLoRA (Qin et al., arXiv 2402.05445); block and double quantization are those of nf4."""

    rank: Count = 64
    alpha: float = Field(default=16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: Share = 0.0
    reach: float = Field(
        default=0.1, ge=0, description="lambda: how far the shift of a block is looked for, in its deviations"
    )
    steps: Count = Field(default=100, description="n: shifts that are tried on each side")
    elastic: bool = Field(default=True, description="connect the adapters around their matrices (IEC)")


class SlimLlm(Section):
    """Settings of SliM-LLM (Huang et al., arXiv 2405.14917); the rest is that of gptq."""

    mixed: bool = Field(default=True, description="widths b - 1, b, b + 1 by the salience of groups")
    salience_grid: bool = Field(default=True, description="fit grids to salient weights of a group first")


class Hqq(Section):
    """Settings of HQQ (Badri and Shaji 2023)."""

    p: float = Field(default=0.7, gt=0, le=1, description="norm of the error, ||W - W^||_p^p")
    beta: float = Field(default=10.0, gt=0, description="weight of the quadratic splitting term")
    kappa: float = Field(default=1.01, ge=1, description="growth of beta from one iteration to the next")
    iterations: Count = 20


class Nf4(Section):
    """Settings of NF4 (Dettmers et al., arXiv 2305.14314)."""

    table: Literal["nf4", "fp4"] = Field(default="nf4", description="the 16 levels")
    block_size: Count = Field(default=64, description="neighbouring weights of a row that share a scale")
    double_quantization: bool = Field(default=True, description="scales in 8 bits, 256 at a time")


class Int8(Section):
    """Settings of LLM.int8 (Dettmers et al., arXiv 2208.07339)."""

    threshold: float = Field(
        default=6.0, ge=0, description="input columns with a value from here on stay 16 bits; 0: none"
    )
