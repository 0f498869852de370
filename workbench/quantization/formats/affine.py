"""The affine format: codes of 1 to 8 bits, a float16 scale per group, integer zero points unless symmetric.

Shapes: codes [out, in]; scale and zero_point [out, groups]; g_idx [in].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lowbit.affine_linear import dequantize, num_words
from torch import Tensor


@dataclass(frozen=True)
class AffineWeight:
    """A quantized matrix, W = scale * (code - zero_point).

    Attributes:
        codes: [out, in], uint8, in [0, 2**bits).
        scale: [out, groups], float16.
        zero_point: [out, groups], integers in [0, 2**bits) of any dtype; None for a symmetric grid, whose
            zero point is the middle of the codes.
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
            out_features, in_features, self.bits, groups, symmetric=self.symmetric, g_idx=g_idx
        )

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        return dequantize(self.codes, self.scale, self.zero_point, self.g_idx, self.bits)

    def split(self, rows: Sequence[int]) -> list[AffineWeight]:
        """Cut into matrices of so many output rows each."""
        sizes = list(rows)
        zero_points = [None] * len(sizes) if self.zero_point is None else self.zero_point.split(sizes)
        parts = zip(self.codes.split(sizes), self.scale.split(sizes), zero_points, strict=True)
        return [AffineWeight(codes, scale, zero, self.g_idx, self.bits) for codes, scale, zero in parts]


def stored_bits(
    out_features: int, in_features: int, bits: int, groups: int, *, symmetric: bool, g_idx: bool = False
) -> int:
    """Bits that an affine matrix takes on disk: packed codes, scales, packed zero points, group indices.

    Args:
        out_features: output rows.
        in_features: input columns.
        bits: width of a code and of a zero point.
        groups: groups in a row.
        symmetric: no zero points are stored.
        g_idx: the group of each column is stored, because groups are not neighbouring columns.
    """
    codes = 32 * out_features * num_words(in_features, bits)
    scales = 16 * out_features * groups
    zero_points = 0 if symmetric else 32 * groups * num_words(out_features, bits)
    return codes + scales + zero_points + (16 * in_features if g_idx else 0)
