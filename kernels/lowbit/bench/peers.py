"""The products of other packages, each from the same weight; None where a package has none for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from lowbit.bench.contestants import Product, Quantized


def torch_int4(weight: Quantized) -> Product | None:
    """Torch's own 4-bit product, for x in bfloat16 and groups of 32, 64, 128 or 256."""
    if weight.table is not None or weight.bits != 4 or weight.group_size not in (32, 64, 128, 256):
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
    if weight.table is not None or weight.bits != 8 or weight.scale.shape[1] != 1:
        return None
    signed = (weight.codes.int() - 128).to(torch.int8)
    scale = weight.scale[:, 0].bfloat16()
    return lambda x: torch.ops.aten._weight_int8pack_mm(x, signed, scale)


def gemlite(weight: Quantized) -> Product | None:
    """Triton kernels of GemLite."""
    from gemlite.core import DType, GemLiteLinearTriton

    if weight.table is not None or weight.bits not in (1, 2, 4, 8) or not weight.codes.is_cuda:
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

    if weight.table is not None or weight.bits not in (4, 8) or not weight.codes.is_cuda:
        return None
    n, k = weight.codes.shape
    layer = torch.nn.Linear(k, n, bias=False, device=weight.codes.device, dtype=torch.bfloat16)
    layer.weight.data.copy_(weight.dense())
    config = Int4WeightOnlyConfig(weight.group_size) if weight.bits == 4 else Int8WeightOnlyConfig()
    quantize_(layer, config)
    return lambda x: layer(x)


def bitsandbytes(weight: Quantized) -> Product | None:
    """Bitsandbytes' NF4; it keeps scales in float32."""
    if weight.table is None:
        return None
    package: Any = import_module("bitsandbytes")
    pairs = (weight.codes[:, ::2] << 4 | weight.codes[:, 1::2]).view(-1, 1)
    state = package.functional.QuantState(
        weight.scale.float().flatten(),
        shape=weight.codes.shape,
        code=weight.table,
        blocksize=weight.group_size,
        quant_type="nf4",
        dtype=torch.bfloat16,
    )
    return lambda x: package.matmul_4bit(x, pairs, state)


PEERS: dict[str, Callable[[Quantized], Product | None]] = {
    "torch int4": torch_int4,
    "torch int8": torch_int8,
    "gemlite": gemlite,
    "torchao": torchao,
    "bitsandbytes nf4": bitsandbytes,
}
# How far a peer may be from the product in float64, as a share of its norm; torchao rounds once more.
TOLERANCES = {"torchao": 0.2}
