"""A linear layer whose weight stays quantized, in memory and on disk, and the linears it replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench import models
from workbench.quantization.activations import Activations
from workbench.quantization.formats import Layout, Weight, from_layout, layout_of
from workbench.quantization.product import Product, product


class QuantizedLinear(nn.Module):
    """y = x W^T + b with W in any format, and x rounded where activations are quantized too.

    The buffers are the tensors of the format on disk, under its names. The affine and the codebook format
    are multiplied as they are stored; on a CPU, as they are laid out at the first call, in about 9 bits a
    weight (13 for up to 4 bits and inputs in bfloat16, 18 for a codebook) beside the stored ones. The
    weight of another format, or of inputs in float64, is decoded at the first call and kept in the dtype
    of the input. Moving the layer forgets either.

    Attributes:
        layout: format of the weight, and what else of it is not a tensor.
        activations: how inputs are rounded; None: not at all.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        layout: Layout,
        tensors: Mapping[str, Tensor],
        *,
        bias: nn.Parameter | None = None,
        activations: Activations | None = None,
    ) -> None:
        """Make a layer of the tensors of a format, which may be empty ones, to be filled from a file."""
        super().__init__()
        self.in_features, self.out_features, self.layout = in_features, out_features, layout
        self._stored = tuple(tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.bias = bias
        self.activations = activations
        self._product: Product | None = None

    @classmethod
    def from_weight(
        cls,
        weight: Weight,
        shape: tuple[int, int],
        bias: nn.Parameter | None = None,
        activations: Activations | None = None,
    ) -> Self:
        """Keep a quantized matrix of shape [out, in] in a layer."""
        out_features, in_features = shape
        tensors = {name: tensor.contiguous() for name, tensor in weight.tensors().items()}
        return cls(in_features, out_features, layout_of(weight), tensors, bias=bias, activations=activations)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the format, as on disk."""
        return {name: self.get_buffer(name) for name in self._stored}

    @property
    def stored_bits(self) -> int:
        """Bits of the quantized weight on disk; the bias is not one."""
        return sum(8 * tensor.nbytes for tensor in self.tensors.values())

    @property
    def quantized(self) -> Weight:
        """The weight in its format.

        Raises:
            ModelError: the tensors do not fit the layout.
        """
        return from_layout(self.layout, self.tensors, (self.out_features, self.in_features))

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        return self.quantized.dequantize()

    def forward(self, x: Tensor) -> Tensor:
        """From x [..., in] to y [..., out] in the dtype of x."""
        if self.activations is not None:
            x = self.activations.round(x)
        if self._product is None or not self._product.serves(x.dtype):
            shape = (self.out_features, self.in_features)
            self._product = product(self.layout, self.tensors, shape, x.dtype)
        y = self._product(x)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """What `print(model)` says of the layer."""
        said = ", ".join(f"{key}={value}" for key, value in self.layout.items())
        rounded = f", activations of {self.activations.bits} bits" if self.activations else ""
        return f"{self.in_features}, {self.out_features}, {said}{rounded}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device, but not to another dtype: stored data stays as it is."""
        stored = self.tensors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in stored.items():
            moved = self.get_buffer(name)
            if moved.dtype != tensor.dtype:
                setattr(self, name, tensor.to(moved.device))
        self._product = None
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._product = None


def linear_shapes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """[out, in] of every linear that quantization replaces, by dotted name; works on the meta device."""
    blocks = models.blocks(model)
    prefix = dotted_name(model, blocks)
    return {
        f"{prefix}.{index}.{name}": (layer.out_features, layer.in_features)
        for index, block in enumerate(blocks)
        for name, layer in models.linears(block).items()
    }


def dotted_name(model: nn.Module, module: nn.Module) -> str:
    """The name of a module in its model."""
    names: dict[nn.Module, str] = {candidate: name for name, candidate in model.named_modules()}
    return names[module]
