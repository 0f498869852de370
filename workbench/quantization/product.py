"""The product with a quantized weight from its stored tensors, in the operations of `lowbit`.

Letters: N outputs, K inputs, G blocks or groups of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lowbit.affine_linear import op as affine
from lowbit.affine_linear.layout import PERIOD
from lowbit.codebook_linear import op as codebook
from torch import Tensor
from torch.nn.functional import linear

from workbench.quantization.formats import Layout, from_layout
from workbench.quantization.formats.codebook import BlockValues, levels_of


@dataclass(frozen=True)
class AffineProduct:
    """y = x W^T with W = scale * (code - zero_point); fields are the arguments of `affine_linear`."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    g_idx: Tensor | None
    bits: int
    prepacked: list[Tensor]
    dtype: torch.dtype

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], in_features: int, bits: int, dtype: torch.dtype
    ) -> AffineProduct:
        """Of the tensors of an `AffineWeight`, for inputs of a dtype."""
        codes, scale, zero_point = tensors["codes"], tensors["scale"], tensors.get("zero_point")
        g_idx = tensors.get("g_idx")
        prepacked = affine.prepack(codes, scale, zero_point, g_idx, bits, in_features, dtype)
        return cls(codes, scale, zero_point, g_idx, bits, prepacked, dtype)

    def serves(self, dtype: torch.dtype) -> bool:
        """Whether it multiplies inputs of this dtype."""
        return dtype == self.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Compute y [..., N] of x [..., K]."""
        stored = (self.codes, self.scale, self.zero_point, self.g_idx, self.bits)
        return affine.affine_linear(x.contiguous(), *stored, self.prepacked)


@dataclass(frozen=True)
class CodebookProduct:
    """y = x W^T with W = absmax * table[code] + tau.

    Attributes:
        codes: [N, K / 8], int32.
        absmax: [N, G], float32.
        table: [16], float32.
        tau: [N, G], float32, or None.
        prepacked: the same weights as the device wants them.
        dtype: of x.
    """

    codes: Tensor
    absmax: Tensor
    table: Tensor
    tau: Tensor | None
    prepacked: list[Tensor]
    dtype: torch.dtype

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], layout: Layout, dtype: torch.dtype
    ) -> CodebookProduct:
        """Of a `CodebookWeight` [N, K], whose blocks and words are all of one row, for inputs of a dtype."""
        codes = tensors["codes"].view(shape[0], -1)
        absmax = BlockValues.from_tensors(tensors, "absmax").decode().view(shape[0], -1)
        tau = BlockValues.from_tensors(tensors, "tau").decode().view_as(absmax) if "tau" in tensors else None
        table = levels_of("nf4" if layout["table"] == "nf4" else "fp4").to(codes.device)
        prepacked = codebook.prepack(codes, absmax, table, shape[1], dtype)
        return cls(codes, absmax, table, tau, prepacked, dtype)

    def serves(self, dtype: torch.dtype) -> bool:
        """Whether it multiplies inputs of this dtype."""
        return dtype == self.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Compute y [..., N] of x [..., K]."""
        y = codebook.codebook_linear(x.contiguous(), self.codes, self.absmax, self.table, self.prepacked)
        if self.tau is None:
            return y
        sums = x.float().unflatten(-1, (self.tau.shape[1], -1)).sum(-1)  # [..., G]
        shifted: Tensor = y.float() + sums @ self.tau.T
        return shifted.to(x.dtype)


@dataclass(frozen=True)
class DenseProduct:
    """y = x W^T with the decoded weight [N, K]."""

    weight: Tensor

    def serves(self, dtype: torch.dtype) -> bool:
        """Whether it multiplies inputs of this dtype."""
        return self.weight.dtype == dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Compute y [..., N] of x [..., K]."""
        return linear(x, self.weight)


Product = AffineProduct | CodebookProduct | DenseProduct


def product(
    layout: Layout, tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype
) -> Product:
    """The product with a weight of this layout and shape [N, K], for inputs of this dtype.

    Raises:
        ModelError: the tensors do not fit the layout.
    """
    with torch.inference_mode(False), torch.no_grad():  # it may serve in training later
        if layout["format"] == "affine" and dtype in affine.DTYPES:
            return AffineProduct.of(tensors, shape[1], int(layout["bits"]), dtype)
        if layout["format"] == "codebook" and dtype in codebook.DTYPES and _in_rows(layout, shape[1]):
            return CodebookProduct.of(tensors, shape, layout, dtype)
        return DenseProduct(from_layout(layout, tensors, shape).dequantize().to(dtype))


def _in_rows(layout: Layout, in_features: int) -> bool:
    """Whether neither a block of a codebook weight nor a period of its words goes on into the next row."""
    return in_features % int(layout["block_size"]) == 0 and in_features % PERIOD == 0
