"""What Q-resafe trains beside quantized linears, and how it is stored: W = Q_0 + s A B under masks.

Of the factors M A + C is in use: what the mask M holds back is all in C, and stands still until the masks
change, whatever momentum and decay of the optimizer would do to it. In the end the factors are rounded to
16 bits and stored beside the codes of Q_0. Letters: A [out, r], B [r, in]; M_A [out, 1], M_B [1, in].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from workbench.errors import ModelError, NumericsError
from workbench.quantization.formats.adapted import AdaptedWeight
from workbench.quantization.huggingface import mark_quantized, quantized_linears
from workbench.quantization.linear import QuantizedLinear
from workbench.quantization.methods import qlora
from workbench.recipe.safety import PATCHING, QResafe


class PatchedLinear(nn.Module):
    """y = Q_0 x + b + s A B x, of whose factors only what the masks keep is trained.

    Attributes:
        base: Q_0 and b.
        A: [out, r], trained.
        B: [r, in], trained.
        M_A: [out, 1] bool; M_B: [1, in] bool.
        C_A: [out, r]; C_B: [r, in].
        activations: how inputs are rounded, as the base would.
        scaling: s.
        patches: whether A B is in use; without it the layer is that of the reference.
    """

    M_A: Tensor
    M_B: Tensor
    C_A: Tensor
    C_B: Tensor

    def __init__(self, base: QuantizedLinear, settings: QResafe, generator: torch.Generator) -> None:
        """Put factors that change nothing beside a linear; the generator draws B."""
        super().__init__()
        B, A = qlora.start((base.out_features, base.in_features), settings.rank, generator)
        self.base = base
        self.activations, base.activations = base.activations, None
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.register_buffer("M_A", torch.ones(len(A), 1, dtype=torch.bool))
        self.register_buffer("M_B", torch.ones(1, B.shape[1], dtype=torch.bool))
        self.register_buffer("C_A", torch.zeros_like(A))
        self.register_buffer("C_B", torch.zeros_like(B))
        self.scaling = settings.alpha / settings.rank
        self.patches = True

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B as they are in use."""
        return self.M_A * self.A + self.C_A, self.M_B * self.B + self.C_B

    @torch.no_grad()
    def keep(self, critical: Tensor) -> None:
        """Train from now on what meets the weights that are critical, [out, in] bool; nothing jumps."""
        A, B = self.factors
        self.M_A, self.M_B = critical.any(1, keepdim=True), critical.any(0, keepdim=True)
        self.C_A, self.C_B = A - self.M_A * self.A, B - self.M_B * self.B

    @torch.no_grad()
    def weight(self) -> Tensor:
        """W [out, in] in use, float32."""
        A, B = self.factors
        return self.base.dequantize() + self.scaling * (A.float() @ B.float())

    def rounded(self, x: Tensor) -> Tensor:
        """Inputs as the quantized layer sees them; gradients pass straight through."""
        return x if self.activations is None else x + (self.activations.round(x) - x).detach()

    def forward(self, x: Tensor) -> Tensor:
        """From x [..., in] to y [..., out]."""
        x = self.rounded(x)
        y: Tensor = self.base(x)
        if not self.patches:
            return y
        A, B = self.factors
        return y + (self.scaling * linear(linear(x, B), A)).to(y.dtype)

    @torch.no_grad()
    def finished(self) -> QuantizedLinear:
        """The layer with its factors in 16 bits.

        Raises:
            NumericsError: they are not finite.
        """
        A, B = self.factors
        weight = AdaptedWeight.of(self.base.quantized, A=B, B=A, scaling=self.scaling)
        shape = (self.base.out_features, self.base.in_features)
        return QuantizedLinear.from_weight(weight, shape, self.base.bias, self.activations)


def begin(model: PreTrainedModel, settings: QResafe, seed: int) -> None:
    """Put factors that change nothing beside all quantized linears, and let nothing else be trained.

    Raises:
        ModelError: nothing in the model is quantized.
    """
    linears = quantized_linears(model)
    if not linears:
        raise ModelError("nothing in the model is quantized; q-resafe patches quantized models: use dpo")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in linears.items():
        model.set_submodule(name, PatchedLinear(layer, settings, generator).to(model.dtype))
    # What is trained are ordinary parameters, so none of transformers' precautions applies meanwhile.
    model.is_quantized = False  # type: ignore[assignment]
    model.hf_quantizer = None  # type: ignore[assignment]


def finish(model: PreTrainedModel) -> None:
    """Replace the layers of `begin` by quantized linears, in place.

    Raises:
        NumericsError: a factor is not finite; names the linear.
    """
    for name, layer in patched(model).items():
        try:
            model.set_submodule(name, layer.finished())
        except NumericsError as error:
            raise NumericsError(f"{name}: {error}") from error
    mark_quantized(model, PATCHING, model.config.quantization_config.bits)


def patched(model: nn.Module) -> dict[str, PatchedLinear]:
    """The layers of `begin` by dotted name, in forward order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, PatchedLinear)}


@contextmanager
def unpatched(model: nn.Module) -> Iterator[None]:
    """Make a model its own reference for a while."""
    layers = patched(model).values()
    try:
        for layer in layers:
            layer.patches = False
        yield
    finally:
        for layer in layers:
            layer.patches = True


def whole(layer: PatchedLinear) -> Any:
    """A context in which the factors are whole, however ZeRO partitioned them."""
    import deepspeed  # late: see processes.start

    return deepspeed.zero.GatheredParameters([layer.A, layer.B])
