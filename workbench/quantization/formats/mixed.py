"""The mixed format: groups of columns of different widths, each width an affine matrix of its own.

The columns of all groups of one width are stored next to each other, and decoded back to their places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from workbench.quantization.formats.affine import AffineWeight


@dataclass(frozen=True)
class MixedWeight:
    """A quantized matrix whose groups of columns have widths of their own.

    Attributes:
        widths: [groups], uint8, bits of each group; the same for all rows.
        parts: for each width that occurs, the affine matrix [out, columns] of its groups, in their order.
    """

    widths: Tensor
    parts: Mapping[int, AffineWeight]

    @property
    def stored_bits(self) -> int:
        """Bits that the matrix takes on disk, everything included."""
        return 8 * len(self.widths) + sum(part.stored_bits for part in self.parts.values())

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        decoded = {bits: part.dequantize() for bits, part in self.parts.items()}
        first = next(iter(decoded.values()))
        weight = first.new_empty(len(first), sum(part.shape[1] for part in decoded.values()))
        for bits, part in decoded.items():
            weight[:, columns_of(self.widths, bits, weight.shape[1])] = part
        return weight

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk: the widths, and the tensors of each affine matrix, named with its width behind."""
        stored = {"widths": self.widths}
        for bits, part in self.parts.items():
            stored |= {f"{name}_{bits}": tensor for name, tensor in part.tensors().items()}
        return stored

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Self:
        """Undo `tensors`; shape is [out, in].

        Raises:
            ModelError: the tensors are not those of a matrix of this shape.
        """
        widths = tensors["widths"]
        parts = {}
        for bits in widths.unique().tolist():
            suffix = f"_{bits}"
            own = {
                name.removesuffix(suffix): tensor for name, tensor in tensors.items() if name.endswith(suffix)
            }
            columns = int(columns_of(widths, bits, shape[1]).sum())
            parts[bits] = AffineWeight.from_tensors(own, (shape[0], columns), bits)
        return cls(widths, parts)


def columns_of(widths: Tensor, bits: int, in_features: int) -> Tensor:
    """Which columns belong to groups of a width, [in], bool."""
    return (widths == bits).repeat_interleave(in_features // len(widths))
