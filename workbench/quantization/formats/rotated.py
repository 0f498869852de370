"""The rotated format: codes on one grid for the whole matrix, in a basis that a seed regenerates.

    W^ = U^T W~ V diag(d)^-1,    W~ = scale (2 code / (2^b - 1) - 1)

U [out, out] and V [in, in] are random orthogonal matrices (formats/rotation.py), d the balance of the
input channels. Neither U nor V is stored; a seed, the same for all matrices of a model and kept in its
config.json, brings them back. So a weight takes b bits, and d.

Source: Chee et al., arXiv 2307.13304, algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lowbit.affine_linear import num_words, pack, unpack
from torch import Tensor

from workbench.quantization.formats.rotation import Transform, rotation
from workbench.quantization.formats.shapes import check_shapes


@dataclass(frozen=True)
class RotatedWeight:
    """A quantized matrix in a rotated basis.

    Attributes:
        codes: [out, in], uint8, in [0, 2**bits).
        scale: [], float32; the levels go from -scale to scale.
        balance: d [in], float16, or None for ones.
        seed: of U and V.
        transform: how U and V are made.
        bits: width of a code.
    """

    codes: Tensor
    scale: Tensor
    balance: Tensor | None
    seed: int
    transform: Transform
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def stored_bits(self) -> int:
        """Bits that the matrix takes on disk, everything included."""
        return stored_bits(*self.shape, self.bits, balanced=self.balance is not None)

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        top = 2**self.bits - 1
        rotated = self.scale * (self.codes.float() * (2 / top) - 1)
        out_features, in_features = self.shape
        U = rotation(out_features, self.transform, self.seed, "out")
        V = rotation(in_features, self.transform, self.seed, "in")
        weight = U.undo(V.undo(rotated).T).T
        return (weight if self.balance is None else weight / self.balance.float()).contiguous()

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk: codes packed along the input [out, words], the scale [1], and d [in]."""
        stored = {"codes": pack(self.codes, self.bits), "scale": self.scale[None]}
        return stored if self.balance is None else stored | {"balance": self.balance}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], seed: int, transform: Transform, bits: int
    ) -> Self:
        """Undo `tensors`; shape is [out, in].

        Raises:
            ModelError: the tensors are not those of a matrix of this shape and width.
        """
        out_features, in_features = shape
        check_shapes(
            tensors,
            {"codes": (out_features, num_words(in_features, bits)), "scale": (1,), "balance": (in_features,)},
        )
        codes = unpack(tensors["codes"], bits, in_features)
        return cls(codes, tensors["scale"][0], tensors.get("balance"), seed, transform, bits)


def stored_bits(out_features: int, in_features: int, bits: int, *, balanced: bool) -> int:
    """Bits that a rotated matrix takes on disk: packed codes, scale, and d if there is one."""
    codes = 32 * out_features * num_words(in_features, bits)
    return codes + 32 + (16 * in_features if balanced else 0)
