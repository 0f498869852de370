"""The adapted format: a matrix in any format, and beside it a low-rank update in 16 bits.

    w^ = base + scaling * B A

Source: Dettmers et al., arXiv 2305.14314, equation 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.formats.shapes import check_shapes

if TYPE_CHECKING:  # the package has this format in its table
    from workbench.quantization.formats import Weight


@dataclass(frozen=True)
class AdaptedWeight:
    """A quantized matrix and its update.

    Attributes:
        base: [out, in], in any format.
        A: [rank, in], float16.
        B: [out, rank], float16.
        scaling: s, alpha / rank.
    """

    base: Weight
    A: Tensor
    B: Tensor
    scaling: float

    @classmethod
    def of(cls, base: Weight, A: Tensor, B: Tensor, scaling: float) -> Self:
        """Round an update to 16 bits.

        Raises:
            NumericsError: a number is NaN, or beyond float16.
        """
        half = A.detach().half(), B.detach().half()
        if not all(bool(torch.isfinite(part).all()) for part in half):
            raise NumericsError(
                "an adapter is NaN, infinite or beyond float16; train with a lower learning_rate or clip"
            )
        return cls(base, *half, scaling)

    @property
    def stored_bits(self) -> int:
        """Bits that matrix and update take on disk, everything included."""
        (out_features, rank), in_features = self.B.shape, self.A.shape[1]
        return self.base.stored_bits + stored_bits(out_features, in_features, rank)

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        return self.base.dequantize() + self.scaling * (self.B.float() @ self.A.float())

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk: the tensors of the base, named with base_ before, and the update."""
        base = {f"base_{name}": tensor for name, tensor in self.base.tensors().items()}
        return base | {"lora_a": self.A, "lora_b": self.B}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], base: Weight, scaling: float
    ) -> Self:
        """Undo `tensors`; shape is [out, in], and base has been made of its own.

        Raises:
            ModelError: the update is not that of a matrix of this shape.
        """
        rank = tensors["lora_a"].shape[0]
        own = {name: tensors[name] for name in ("lora_a", "lora_b")}
        check_shapes(own, {"lora_a": (rank, shape[1]), "lora_b": (shape[0], rank)})
        return cls(base, own["lora_a"], own["lora_b"], scaling)


def stored_bits(out_features: int, in_features: int, rank: int) -> int:
    """Bits that an update takes on disk, without the matrix beside it."""
    return 16 * rank * (out_features + in_features)
