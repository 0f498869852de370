"""The quantization stage of a recipe: which methods, at which widths and in which groups, on which text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

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
from workbench.recipe.section import Name, Section, Width
from workbench.recipe.training import TrainingStage


class Quantize(Section):
    """Post-training weight quantization: one row per method, bit width and group size."""

    kind: Literal["quantize"]
    name: Name = "quantize"
    start: str | None = Field(
        default=None, alias="from", description="variant to go on from; default: the last one"
    )
    methods: list[QuantizationMethod] | None = Field(
        default=None, min_length=1, description="each at all of `bits`"
    )
    bits: list[Width] | None = Field(
        default=None,
        min_length=1,
        description="nominal bits a weight, 1 to 8; between two whole numbers for pb-llm only. With "
        "allocation: real bits a weight, scales included",
    )
    widths: dict[QuantizationMethod, list[Width]] | None = Field(
        default=None,
        min_length=1,
        description="bits of each method, instead of methods and bits",
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

    @property
    def bits_of(self) -> dict[QuantizationMethod, list[float]]:
        """The bits of each method, in the order of the rows."""
        said = self.widths or dict.fromkeys(self.methods or [], self.bits or [])
        return {method: list(dict.fromkeys(bits)) for method, bits in said.items()}

    def rounding_of(self, method: str) -> dict[str, Any]:
        """The settings that the rounding depends on, before training; of one of ADAPTED."""
        shifted = self.ir_qlora.model_dump(include={"reach", "steps"}) if method == "ir-qlora" else None
        return {"nf4": self.nf4.model_dump(), "shifted": shifted}

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
        if bool(self.widths) == bool(self.methods or self.bits):
            raise ValueError("say methods and bits, or widths: one of both")
        if not all(self.bits_of.values()) or not self.bits_of:
            raise ValueError("methods and bits go together; a method without bits makes no row")
        for method, widths in self.bits_of.items():
            if method in CALIBRATED and self.calibration is None:
                raise ValueError(f"{method} needs calibration: name a mixture of data sources")
            if method in TUNED and self.tuning is None:
                raise ValueError(f"{method} needs tuning: say on what and how long it is trained")
            if self.allocation and method not in ALLOCATED:
                raise ValueError(
                    f"allocation is for {', '.join(sorted(ALLOCATED))}; give {method} a stage of its own"
                )
            for bits in widths:
                self._check_width(method, bits)
        if self.allocation and self.calibration is None:
            raise ValueError("allocation needs calibration: text on which sensitivity is measured")
        return self

    def _check_width(self, method: str, bits: float) -> None:
        only = FIXED_BITS.get(method)
        if only is not None and bits != only:
            raise ValueError(
                f"{method} has {only} bits, found {bits}; write it as widths: {{{method}: [{only}]}}"
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
                f"{method} has {low} to {high} bits, found {bits}; give it bits of its own under widths"
            )
        if method != "pb-llm" and self.allocation is None and bits != int(bits):
            raise ValueError(f"{method} has whole bits, found {bits}; only pb-llm takes a mean such as 1.7")
