"""Who takes part: the products of this package, the dense ones, and those of other packages.

Each is a function from a quantized weight to the product with it; a weight is copied before, so that every
copy has memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from lowbit.affine_linear import op
from lowbit.affine_linear.layout import pack
from lowbit.affine_linear.reference import dequantize

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Quantized:
    """A symmetric weight W = scale * (code - 2^(bits-1)).

    Attributes:
        codes: [N, K], uint8.
        words: the same, packed.
        scale: [N, K / group_size], float16.
        bits: width of a code.
    """

    codes: Tensor
    words: Tensor
    scale: Tensor
    bits: int

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.codes.shape[1] // self.scale.shape[1]

    def dense(self) -> Tensor:
        """W [N, K], float32."""
        return dequantize(self.codes, self.scale, None, None, self.bits)


def random_weight(shape: tuple[int, int], bits: int, group_size: int, device: torch.device) -> Quantized:
    """A weight of every code, alike for the same arguments."""
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(2**bits, shape, dtype=torch.uint8, generator=draw)
    scale = 0.01 + 0.01 * torch.rand(shape[0], shape[1] // group_size, generator=draw)
    return Quantized(codes.to(device), pack(codes, bits).to(device), scale.half().to(device), bits)


def ours(weight: Quantized) -> Product:
    """The product of this package, from packed words and what `prepack` makes of them."""
    stored = (weight.words.clone(), weight.scale.clone(), None, None, weight.bits)
    prepacked = op.prepack(*stored, weight.codes.shape[1], torch.bfloat16)
    return lambda x: op.affine_linear(x, *stored, prepacked)


def dense(weight: Tensor, dtype: torch.dtype) -> Product:
    """The product with the decoded weight."""
    kept = weight.to(dtype, copy=True)
    return lambda x: linear(x.to(dtype), kept)


def torch_int4(weight: Quantized) -> Product | None:
    """Torch's own 4-bit product, for x in bfloat16 and groups of 32, 64, 128 or 256."""
    if weight.bits != 4 or weight.group_size not in (32, 64, 128, 256):
        return None
    scale = weight.scale.bfloat16().T
    grid = torch.stack([scale, torch.zeros_like(scale)], 2).contiguous()  # [K / g, N, 2]
    if weight.codes.device.type == "cpu":
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight.codes.int(), 1)
        return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, weight.group_size, grid)
    pairs = weight.codes[:, 1::2] | weight.codes[:, ::2] << 4
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    return lambda x: torch.ops.aten._weight_int4pack_mm(x, packed, weight.group_size, grid)


def torch_int8(weight: Quantized) -> Product | None:
    """Torch's own 8-bit product, which knows one scale a row."""
    if weight.bits != 8 or weight.scale.shape[1] != 1:
        return None
    signed = (weight.codes.int() - 128).to(torch.int8)
    scale = weight.scale[:, 0].bfloat16()
    return lambda x: torch.ops.aten._weight_int8pack_mm(x, signed, scale)


def gemlite(weight: Quantized) -> Product | None:
    """Triton kernels of GemLite."""
    from gemlite.core import DType, GemLiteLinearTriton

    if weight.bits not in (1, 2, 4, 8) or weight.codes.device.type != "cuda":
        return None
    n, k = weight.codes.shape
    layer = GemLiteLinearTriton(
        W_nbits=weight.bits,
        group_size=weight.group_size,
        in_features=k,
        out_features=n,
        input_dtype=DType.BF16,
        output_dtype=DType.BF16,
    )
    scale = weight.scale.bfloat16().view(-1, 1)
    zero = torch.full_like(scale, 2.0 ** (weight.bits - 1) if weight.bits > 1 else 0.5)
    layer.pack(weight.codes.clone(), scale, zero, bias=None)
    return lambda x: layer(x)


def torchao(weight: Quantized) -> Product | None:
    """Torchao's weight-only linears; they quantize the decoded weight again, onto the same levels."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    if weight.bits not in (4, 8) or weight.codes.device.type != "cuda":
        return None
    n, k = weight.codes.shape
    layer = torch.nn.Linear(k, n, bias=False, device=weight.codes.device, dtype=torch.bfloat16)
    layer.weight.data.copy_(weight.dense())
    config = Int4WeightOnlyConfig(weight.group_size) if weight.bits == 4 else Int8WeightOnlyConfig()
    quantize_(layer, config)
    return lambda x: layer(x)


PEERS: dict[str, Callable[[Quantized], Product | None]] = {
    "torch int4": torch_int4,
    "torch int8": torch_int8,
    "gemlite": gemlite,
    "torchao": torchao,
}
# How far a peer may be from the product in float64, as a share of its norm; torchao rounds once more.
TOLERANCES = {"torch int4": 0.01, "torch int8": 0.01, "gemlite": 0.01, "torchao": 0.2}
