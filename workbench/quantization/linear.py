"""A linear layer whose weight stays quantized, in memory and on disk, and the linears it replaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from lowbit.affine_linear import dequantize_packed, num_words, pack
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from workbench import models
from workbench.quantization.formats.affine import AffineWeight


class AffineLinear(nn.Module):
    """y = x W^T + b with W in the affine format; the buffers are the tensors on disk.

    The weight is decoded by the `lowbit` reference at the first call and kept in the dtype of the input,
    so that evaluating a quantized model takes the time and, from that call on, also the memory of the
    unquantized one beside the packed weights. Moving the layer forgets the decoded weight.

    Attributes:
        codes: [out, ceil(in * bits / 32)], int32.
        scale: [out, groups], float16; stays float16 when the model is cast, because it is stored data.
        zero_point: [groups, ceil(out * bits / 32)], int32, or None for a symmetric grid.
        g_idx: [in], int16, or None when groups are neighbouring columns.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    g_idx: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bits: int,
        group_size: int,
        *,
        symmetric: bool,
        g_idx: bool = False,
        bias: nn.Parameter | None = None,
    ) -> None:
        """Make an empty layer, to be filled from a file or by `from_weight`."""
        super().__init__()
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        groups = in_features // group_size
        codes = torch.empty(out_features, num_words(in_features, bits), dtype=torch.int32)
        zero_point = torch.empty(groups, num_words(out_features, bits), dtype=torch.int32)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", torch.empty(out_features, groups, dtype=torch.float16))
        self.register_buffer("zero_point", None if symmetric else zero_point)
        self.register_buffer("g_idx", torch.empty(in_features, dtype=torch.int16) if g_idx else None)
        self.bias = bias
        self._decoded: Tensor | None = None

    @classmethod
    def from_weight(cls, weight: AffineWeight, bias: nn.Parameter | None) -> Self:
        """Pack a quantized matrix into a layer."""
        out_features, in_features = weight.codes.shape
        with torch.device("meta"):
            layer = cls(
                in_features,
                out_features,
                weight.bits,
                weight.group_size,
                symmetric=weight.symmetric,
                g_idx=weight.g_idx is not None,
                bias=bias,
            )
        layer.codes = pack(weight.codes, weight.bits)
        layer.scale = weight.scale.clone()  # layers that were quantized together must not share storage
        layer.zero_point = None if weight.zero_point is None else pack(weight.zero_point.T, weight.bits)
        layer.g_idx = None if weight.g_idx is None else weight.g_idx.clone()
        return layer

    @property
    def stored_bits(self) -> int:
        """Bits of the quantized weight on disk; the bias is not one."""
        tensors = (self.codes, self.scale, self.zero_point, self.g_idx)
        return sum(8 * tensor.nbytes for tensor in tensors if tensor is not None)

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        stored = (self.codes, self.scale, self.zero_point, self.g_idx)
        return dequantize_packed(*stored, self.bits, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """From x [..., in] to y [..., out] in the dtype of x."""
        if self._decoded is None or self._decoded.dtype != x.dtype:
            # A tensor made in inference mode could never be used in training again.
            with torch.inference_mode(False), torch.no_grad():
                self._decoded = self.dequantize().to(x.dtype)
        return linear(x, self._decoded, self.bias)

    def extra_repr(self) -> str:
        """What `print(model)` says of the layer."""
        groups = self.scale.shape[1]
        kind = "symmetric" if self.zero_point is None else "asymmetric"
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, groups={groups}, {kind}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device, but not to another dtype."""
        stored = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scale.dtype != stored.dtype:
            self.scale = stored.to(self.scale.device)
        self._decoded = None
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._decoded = None


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
