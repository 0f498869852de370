"""The affine format: codes of 1 to 8 bits, a float16 scale per group, zero points unless symmetric.

Shapes: codes [out, in]; scale and zero_point [out, groups]; g_idx [in].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from lowbit.affine_linear import dequantize, implied_zero_point, num_words, pack, unpack
from torch import Tensor

from workbench.quantization.formats.shapes import check_shapes


@dataclass(frozen=True)
class AffineWeight:
    """A quantized matrix, W = scale * (code - zero_point).

    Attributes:
        codes: [out, in], uint8, in [0, 2**bits).
        scale: [out, groups], float16.
        zero_point: [out, groups]: fractions, in float16 (HQQ), or integers in [0, 2**bits) in any other
            dtype; None for a symmetric grid, whose zero point is the middle of the codes.
        g_idx: [in], int16, the group of each column; None when groups are runs of neighbouring columns.
        bits: width of a code.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    g_idx: Tensor | None
    bits: int

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is implied."""
        return self.zero_point is None

    @property
    def group_size(self) -> int:
        """Input columns that share a scale."""
        return self.codes.shape[1] // self.scale.shape[1]

    @property
    def stored_bits(self) -> int:
        """Bits that the matrix takes on disk, everything included."""
        out_features, in_features = self.codes.shape
        groups, g_idx = self.scale.shape[1], self.g_idx is not None
        return stored_bits(
            out_features,
            in_features,
            self.bits,
            groups,
            symmetric=self.symmetric,
            g_idx=g_idx,
            fractional=self.zero_point is not None and self.zero_point.dtype == torch.float16,
        )

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        return dequantize(self.codes, self.scale, self.zero_point, self.g_idx, self.bits)

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk: packed codes, scales, packed zero points and group indices, the latter if any.

        Shapes: codes [out, bits * ceil(in / 32)], int32; scale [out, groups], float16; zero_point
        [groups, bits * ceil(out / 32)], int32, or [out, groups], float16; g_idx [in], int16.
        """
        # clones: matrices that were quantized together must not share storage
        stored = {"codes": pack(self.codes, self.bits), "scale": self.scale.clone()}
        if self.zero_point is not None:
            fractional = self.zero_point.dtype == torch.float16
            stored["zero_point"] = (
                self.zero_point.clone() if fractional else pack(self.zero_point.T, self.bits)
            )
        if self.g_idx is not None:
            stored["g_idx"] = self.g_idx.clone()
        return stored

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], bits: int) -> Self:
        """Undo `tensors`; shape is [out, in].

        Raises:
            ModelError: the tensors are not those of a matrix of this shape and width.
        """
        out_features, in_features = shape
        scale, zero_point, g_idx = tensors["scale"], tensors.get("zero_point"), tensors.get("g_idx")
        groups = scale.shape[-1]
        fractional = zero_point is not None and zero_point.dtype == torch.float16
        expected = {
            "codes": (out_features, num_words(in_features, bits)),
            "scale": (out_features, groups),
            "zero_point": (out_features, groups) if fractional else (groups, num_words(out_features, bits)),
            "g_idx": (in_features,),
        }
        check_shapes(tensors, expected)
        if zero_point is not None and not fractional:
            zero_point = unpack(zero_point, bits, out_features).T
        return cls(unpack(tensors["codes"], bits, in_features), scale, zero_point, g_idx, bits)

    def clipped_share(self, weight: Tensor) -> float:
        """Share of the weights [out, in] that lie more than half a step outside of their grid."""
        index = torch.arange(weight.shape[1], device=weight.device) // self.group_size
        index = index if self.g_idx is None else self.g_idx.int()
        scale = torch.where(self.scale == 0, 1, self.scale.float())
        zero_point = torch.full_like(scale, implied_zero_point(self.bits))
        if self.zero_point is not None:
            zero_point = self.zero_point.to(scale.dtype)
        position = weight / scale[:, index] + zero_point[:, index]
        return float(((position < -0.5) | (position > 2**self.bits - 0.5)).float().mean())

    def split(self, rows: Sequence[int]) -> list[AffineWeight]:
        """Cut into matrices of so many output rows each."""
        sizes = list(rows)
        zero_points = [None] * len(sizes) if self.zero_point is None else self.zero_point.split(sizes)
        parts = zip(self.codes.split(sizes), self.scale.split(sizes), zero_points, strict=True)
        return [AffineWeight(codes, scale, zero, self.g_idx, self.bits) for codes, scale, zero in parts]


def stored_bits(
    out_features: int,
    in_features: int,
    bits: int,
    groups: int,
    *,
    symmetric: bool,
    g_idx: bool = False,
    fractional: bool = False,
) -> int:
    """Bits that an affine matrix takes on disk: packed codes, scales, packed zero points, group indices.

    Args:
        out_features: output rows.
        in_features: input columns.
        bits: width of a code and of a zero point.
        groups: groups in a row.
        symmetric: no zero points are stored.
        g_idx: the group of each column is stored, because groups are not neighbouring columns.
        fractional: zero points are float16.
    """
    codes = 32 * out_features * num_words(in_features, bits)
    scales = 16 * out_features * groups
    packed = 16 * groups * out_features if fractional else 32 * groups * num_words(out_features, bits)
    zero_points = 0 if symmetric else packed
    return codes + scales + zero_points + (16 * in_features if g_idx else 0)
