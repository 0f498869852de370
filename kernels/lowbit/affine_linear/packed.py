"""Packed weights as the kernels take them.

Codes [N, words], int32; scale [N, groups]; a group is K / groups neighbouring columns; zero points packed
along N [groups, words], int32, or fractions [N, groups], or None.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lowbit.affine_linear.kernel_tiles import CODEBOOK, FRACTIONS, PACKED, SYMMETRIC
from lowbit.affine_linear.layout import PLANES, check_bits, num_words

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Packed:
    """Weights W [N, K] as kernels take them.

    Attributes:
        codes: [N, bits * ceil(K / 32)], int32.
        scale: [N, groups], any float dtype.
        zero_point: [groups, bits * ceil(N / 32)], int32; [N, groups], any float dtype; or None.
        table: [16], the levels of a codebook; None on an affine grid.
        bits: width of a code.
        in_features: K.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    table: Tensor | None
    bits: int
    in_features: int

    def __post_init__(self) -> None:
        """Check shapes, dtypes and devices.

        Raises:
            ValueError: a tensor is not as said above.
        """
        check_bits(self.bits)
        (n, groups), k = self.scale.shape, self.in_features
        shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
        shapes["codes"] = (self.codes, (n, num_words(k, self.bits)))
        if self.zero_point is not None:
            packed = self.zero_point.dtype == torch.int32
            expected = (groups, num_words(n, self.bits)) if packed else (n, groups)
            shapes["zero_point"] = (self.zero_point, expected)
        if self.table is not None:
            shapes["table"] = (self.table, (1 << self.bits,))
        for name, (tensor, shape) in shapes.items():
            if tuple(tensor.shape) != shape or not tensor.is_contiguous():
                raise ValueError(
                    f"{name} has shape {list(tensor.shape)}; a contiguous {list(shape)} is supported"
                )
        if self.codes.dtype != torch.int32:
            raise ValueError(f"codes have dtype {self.codes.dtype}; torch.int32 is supported")
        if k % groups:
            raise ValueError(f"{groups} groups do not divide {k} columns")

    @property
    def shape(self) -> tuple[int, int]:
        """[N, K]."""
        return self.scale.shape[0], self.in_features

    @property
    def group_size(self) -> int:
        """Neighbouring columns that share a scale."""
        return self.in_features // self.scale.shape[1]

    @property
    def part(self) -> int | None:
        """Columns that a kernel takes at a time, all of one group; None where no multiple of 32 does."""
        if self.scale.shape[1] == 1:
            return 128
        return next((part for part in (128, 64, 32) if self.group_size % part == 0), None)

    @property
    def grid(self) -> int:
        """Which grid, as the kernels name it."""
        if self.table is not None:
            return int(CODEBOOK.value)
        if self.zero_point is None:
            return int(SYMMETRIC.value)
        return int((PACKED if self.zero_point.dtype == torch.int32 else FRACTIONS).value)

    def constants(self) -> dict[str, int]:
        """Compile-time arguments that all kernels take."""
        widths = [width for width, _ in PLANES[self.bits]] + [0, 0]
        return {
            "GROUP_SIZE": self.group_size,
            "GRID": self.grid,
            "BITS": self.bits,
            "P0": widths[0],
            "P1": widths[1],
            "P2": widths[2],
        }

    def for_dtype(self, dtype: torch.dtype) -> Packed:
        """The same weights with the levels of a codebook in the dtype of a product.

        Levels of two bytes are looked up where they lie; wider ones the compiler would stage in
        shared memory, one copy for each weight.
        """
        if self.table is None or self.table.dtype == dtype:
            return self
        return replace(self, table=self.table.to(exact(dtype)))

    def pointers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Words, scale, zero point and table; what is absent is never read."""
        zero_point = self.scale if self.zero_point is None else self.zero_point
        return self.codes, self.scale, zero_point, self.scale if self.table is None else self.table


def exact(dtype: torch.dtype) -> torch.dtype:
    """The dtype that a kernel computes in: the interpreter has no arithmetic of bfloat16."""
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype
