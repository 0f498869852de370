"""Who takes part: the products of this package and the dense ones; those of others are in `peers`.

Each is a function from a weight to the product with it; a weight is copied before, so that every copy has
memory of its own. A product takes x [M, K] to y [M, N], or as one of the gradient dy [M, N] to dx [M, K].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from lowbit.affine_linear import op as affine
from lowbit.affine_linear.layout import pack
from lowbit.affine_linear.reference import dequantize
from lowbit.codebook_linear import op as codebook
from lowbit.codebook_linear.reference import BITS, dequantize_packed

Product = Callable[[Tensor], Tensor]
# The 16 levels of NF4, QLoRA (arXiv 2305.14314), appendix E.
NF4 = (
    *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
)


@dataclass(frozen=True, eq=False)
class Quantized:
    """A symmetric weight W = scale * (code - 2^(bits-1)), or of a codebook, W = scale * table[code].

    Attributes:
        codes: [N, K], uint8.
        words: the same, packed.
        scale: [N, K / group_size], float16.
        bits: width of a code.
        table: [16], float32, or None.
    """

    codes: Tensor
    words: Tensor
    scale: Tensor
    bits: int
    table: Tensor | None = None

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.codes.shape[1] // self.scale.shape[1]

    def dense(self) -> Tensor:
        """W [N, K], float32."""
        if self.table is None:
            return dequantize(self.codes, self.scale, None, None, self.bits)
        return dequantize_packed(self.words, self.scale, self.table, self.codes.shape[1])


def random_weight(
    shape: tuple[int, int],
    bits: int,
    group_size: int,
    device: torch.device,
    table: tuple[float, ...] | None = None,
) -> Quantized:
    """A weight of every code, alike for the same arguments."""
    draw = torch.Generator().manual_seed(bits)
    codes = torch.randint(2**bits, shape, dtype=torch.uint8, generator=draw)
    scale = 0.01 + 0.01 * torch.rand(shape[0], shape[1] // group_size, generator=draw)
    levels = None if table is None else torch.tensor(table, device=device)
    return Quantized(codes.to(device), pack(codes, bits).to(device), scale.half().to(device), bits, levels)


def random_nf4(shape: tuple[int, int], group_size: int, device: torch.device) -> Quantized:
    """The same with the levels of NF4."""
    return random_weight(shape, BITS, group_size, device, NF4)


def ours(weight: Quantized) -> Product | None:
    """The affine product, from packed words and what `prepack` makes of them."""
    if weight.table is not None:
        return None
    stored = (weight.words.clone(), weight.scale.clone(), None, None, weight.bits)
    prepacked = affine.prepack(*stored, weight.codes.shape[1], torch.bfloat16)
    return lambda x: affine.affine_linear(x, *stored, prepacked)


def ours_gradient(weight: Quantized) -> Product | None:
    """The gradient dx of the affine product, which training asks for."""
    if weight.table is not None:
        return None
    stored, k = (weight.words.clone(), weight.scale.clone(), None, None, weight.bits), weight.codes.shape[1]
    prepacked = affine.prepack(*stored, k, torch.bfloat16)
    gradient = torch.ops.lowbit.affine_linear_backward
    return lambda dy: gradient(dy, *stored, k, prepacked)


def ours_codebook(weight: Quantized) -> Product | None:
    """The product with a codebook."""
    if weight.table is None:
        return None
    stored = (weight.words.clone(), weight.scale.clone(), weight.table)
    prepacked = codebook.prepack(*stored, weight.codes.shape[1], torch.bfloat16)
    return lambda x: codebook.codebook_linear(x, *stored, prepacked)


def dense(weight: Tensor, dtype: torch.dtype) -> Product:
    """The product with the decoded weight."""
    kept = weight.to(dtype, copy=True)
    return lambda x: linear(x.to(dtype), kept)


def dense_gradient(weight: Tensor, dtype: torch.dtype) -> Product:
    """The gradient dx of the product with the decoded weight."""
    kept = weight.to(dtype, copy=True)
    return lambda dy: dy.to(dtype) @ kept


GRADIENT = " dx"  # ends the name of a contestant whose product is that of the gradient
OURS: dict[str, Callable[[Quantized], Product | None]] = {
    "ours": ours,
    "ours nf4": ours_codebook,
    f"ours{GRADIENT}": ours_gradient,
}
