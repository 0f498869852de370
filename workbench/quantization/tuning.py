"""Methods that are trained after rounding: what is trained beside frozen weights, and what is stored of it.

QLoRA and IR-QLoRA begin with a model that has been rounded and train an update of each quantized linear;
DB-LLM begins with the model itself and trains the scales of its planes. The training is the one loop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.errors import ModelError, NumericsError
from workbench.quantization.finished import LayerReport
from workbench.quantization.formats.adapted import AdaptedWeight
from workbench.quantization.formats.codebook import CodebookWeight
from workbench.quantization.grid import check_group_size
from workbench.quantization.huggingface import mark_quantized, num_weights, quantized_linears
from workbench.quantization.linear import QuantizedLinear, linear_shapes
from workbench.quantization.methods import ir_qlora, qlora
from workbench.quantization.methods.db_llm import DualBinaryLinear
from workbench.quantization.walk import Report
from workbench.recipe.quantization import IrQlora, Qlora
from workbench.recipe.quantize import Quantize


class AdaptedLinear(nn.Module):
    """y = W^ x + b + s B A x with W^ quantized and frozen; with elastic connections around A and B.

    Attributes:
        base: W^ and b.
        A: [rank, in].
        B: [out, rank].
        beta1: [1], of the connection around A; None without connections, as beta2.
        beta2: [1], of the connection around B.
        scaling: s.
    """

    def __init__(self, base: QuantizedLinear, settings: Qlora | IrQlora, generator: torch.Generator) -> None:
        """Put an update that changes nothing beside a linear; the generator draws A."""
        super().__init__()
        A, B = qlora.start((base.out_features, base.in_features), settings.rank, generator)
        self.base = base
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.scaling = settings.alpha / settings.rank
        self.dropout = nn.Dropout(settings.dropout)
        elastic = isinstance(settings, IrQlora) and settings.elastic
        self.beta1, self.beta2 = (nn.Parameter(torch.zeros(1)) if elastic else None for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """From x [..., in] to y [..., out]."""
        y: Tensor = self.base(x)
        x = self.dropout(x)
        if self.beta1 is None or self.beta2 is None:
            update = qlora.update(x, self.A, self.B)
        else:
            update = ir_qlora.update(x, self.A, self.B, self.beta1, self.beta2)
        return y + (self.scaling * update).to(y.dtype)

    @torch.no_grad()
    def finished(self) -> QuantizedLinear:
        """The layer with its update in 16 bits, connections merged into it.

        Raises:
            NumericsError: the update is not finite.
        """
        A, B = self.A.float(), self.B.float()
        if self.beta1 is not None and self.beta2 is not None:
            A, B = ir_qlora.merged(A, B, self.beta1.float(), self.beta2.float())
        weight = AdaptedWeight.of(self.base.quantized, A, B, self.scaling)
        shape = (self.base.out_features, self.base.in_features)
        return QuantizedLinear.from_weight(weight, shape, self.base.bias)


def prepare(model: PreTrainedModel, method: str, stage: Quantize, seed: int) -> None:
    """Make a model ready for the loop, in place: nothing but what the method trains requires a gradient.

    Args:
        model: rounded for qlora and ir-qlora, not quantized for db-llm.
        method: one of TUNED.
        stage: its settings; lists of methods, bits and groups are not looked at.
        seed: of what is random.

    Raises:
        ModelError: the group size does not divide, or the model is not as the method needs it.
        NumericsError: a weight is not finite; names the linear.
    """
    model.requires_grad_(False)
    if method == "db-llm":
        return _binarize(model, stage)
    settings = stage.qlora if method == "qlora" else stage.ir_qlora
    generator = torch.Generator().manual_seed(seed)
    for name, layer in quantized_linears(model).items():
        model.set_submodule(name, AdaptedLinear(layer, settings, generator))


def finish(model: PreTrainedModel, method: str, bits: float) -> None:
    """Replace what was trained by quantized linears, in place.

    Raises:
        NumericsError: a number that was trained is not finite; names the linear.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLinear | DualBinaryLinear):
            try:
                model.set_submodule(name, module.finished())
            except NumericsError as error:
                raise NumericsError(f"{name}: {error}") from error
    mark_quantized(model, method, bits)


def compare(model: PreTrainedModel, original: PreTrainedModel, method: str, bits: float) -> Report:
    """What rounding and training together did to the linears of a finished model.

    Args:
        model: finished.
        original: the model that was quantized.
        method: one of TUNED.
        bits: nominal.
    """
    linears = quantized_linears(model)
    layers = [_report(name, layer, original) for name, layer in linears.items()]
    stored = sum(layer.stored_bits for layer in linears.values())
    return Report(method, bits, stored, num_weights(linears.values()), layers)


def num_trainable(method: str, shape: tuple[int, int], stage: Quantize) -> int:
    """Numbers that a method trains of a linear of shape [out, in]."""
    rows, columns = shape
    if method == "db-llm":
        return 2 * rows * (1 if stage.group_size == "channel" else columns // stage.group_size)
    settings = stage.qlora if method == "qlora" else stage.ir_qlora
    betas = 2 if isinstance(settings, IrQlora) and settings.elastic else 0
    return settings.rank * (rows + columns) + betas


def _binarize(model: PreTrainedModel, stage: Quantize) -> None:
    shapes = linear_shapes(model)
    if not shapes:
        raise ModelError("the model is quantized already; quantize the one it was made from")
    check_group_size(shapes, stage.group_size)
    for name in shapes:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        try:
            model.set_submodule(name, DualBinaryLinear.of(linear, stage.group_size))
        except NumericsError as error:
            raise NumericsError(f"{name}: {error}") from error


@torch.no_grad()
def _report(name: str, layer: QuantizedLinear, original: PreTrainedModel) -> LayerReport:
    """Compare a matrix with what it became."""
    quantized = layer.quantized
    approximation = quantized.dequantize()
    W = original.get_parameter(f"{name}.weight").to(approximation)
    size = W.norm().clamp(min=1e-30)
    measured: dict[str, float] = {}
    if isinstance(quantized, AdaptedWeight):
        measured["rounding_error"] = float((W - quantized.base.dequantize()).norm() / size)
        if isinstance(quantized.base, CodebookWeight):
            codes = ir_qlora.entropy(quantized.base.codes, quantized.base.block_size)
            measured["code_entropy"] = float(codes.mean())
    return LayerReport(
        name=name,
        shape=(layer.out_features, layer.in_features),
        bits=layer.stored_bits / W.numel(),
        weight_error=float((W - approximation).norm() / size),
        output_error=None,
        diagnostics=measured,
    )
