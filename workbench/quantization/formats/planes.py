"""The planes format: one or two bits a weight into a few levels per row and block of columns.

b1, b2 in {0, 1} are a weight's bits, and offsets o and steps s belong to its row and block:

    one plane                 w^ = o + s b1                            binarized
    two planes, split         w^ = o_k + s_k b1, k = b2                two sets, each binarized
    two planes, additive      w^ = o + s b1 + s' b2                    residual, or dual without o

A binarization mu + alpha B with B in {-1, 1} is o = mu - alpha, s = 2 alpha; a residual one has
o = mu + mu' - alpha - alpha', and so one number less than its paper counts. A mask may set salient
weights apart, which then are affine codes with one grid a row, w^ = scale (code - zero_point). The top
bit of such a code is where b1 of another weight would be, and only the rest is stored beside the planes.

Sources: PB-LLM, arXiv 2310.00034; BiLLM, arXiv 2402.04291; DB-LLM, arXiv 2402.11960.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from lowbit.affine_linear import num_words, pack, unpack
from torch import Tensor

from workbench.quantization.formats.shapes import check_shapes

WORD = 32


@dataclass(frozen=True)
class Salient:
    """Weights of a matrix that are kept in more bits.

    Attributes:
        mask: [out, in], bool, which they are.
        codes: [salient weights], uint8, row by row.
        scale: [out], float16.
        zero_point: [out], uint8.
    """

    mask: Tensor
    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def dequantize(self) -> Tensor:
        """Their values [salient weights], float32, row by row."""
        row = self.mask.nonzero()[:, 0]
        return self.scale[row].float() * (self.codes.float() - self.zero_point[row].float())


@dataclass(frozen=True)
class PlanesWeight:
    """A matrix of few levels; the module's header says which.

    Attributes:
        planes: [1 or 2, out, in], bool: b1, b2.
        offset: [sets, out, blocks], float16, the split sets first, the additive one last; None for dual.
        step: [steps, out, blocks], float16, those of the split sets first, the two additive ones last.
        additive: [in], bool, the columns whose second bit adds; None when all columns are of one kind:
            additive without offset, split otherwise.
        salient: weights that the planes do not hold, or None; their bits b1 are False.
        salient_bits: width of their codes, 2 to 8.
    """

    planes: Tensor
    offset: Tensor | None
    step: Tensor
    additive: Tensor | None = None
    salient: Salient | None = None
    salient_bits: int = 8

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.planes.shape[1], self.planes.shape[2]

    @property
    def stored_bits(self) -> int:
        """Bits that the matrix takes on disk, everything included."""
        return stored_bits(
            *self.shape,
            self.step.shape[2],
            planes=len(self.planes),
            numbers=len(self.step) + (0 if self.offset is None else len(self.offset)),
            column_mask=self.additive is not None,
            salient=None if self.salient is None else len(self.salient.codes),
            salient_bits=self.salient_bits,
        )

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        planes = self.planes.float()
        if self.offset is None:
            weight = self._steps(-2) * planes[0] + self._steps(-1) * planes[1]
        else:
            weight = self._split(self.offset)
        if self.offset is not None and self.additive is not None:
            offset = self._spread(self.offset[-1])
            added = offset + self._steps(-2) * planes[0] + self._steps(-1) * planes[1]
            weight = torch.where(self.additive, added, weight)
        if self.salient is not None:
            weight[self.salient.mask] = self.salient.dequantize()
        return weight

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk: bits packed along the input, 32 in a word, and the numbers of the blocks.

        Shapes: planes [1 or 2, out, words], int32; offset and step as they are; additive [words], int32;
        salient [out, words], int32; salient_codes, one stream of all but their top bits, int32;
        salient_scale [out], float16; salient_zero_point [out], uint8.
        """
        stored, planes, rest = {"step": self.step}, self.planes, self.salient_bits - 1
        if self.offset is not None:
            stored["offset"] = self.offset
        if self.additive is not None:
            stored["additive"] = pack(self.additive, 1)
        if self.salient is not None:
            planes = planes.clone()
            planes[0, self.salient.mask] = self.salient.codes >> rest > 0
            stored["salient"] = pack(self.salient.mask, 1)
            stored["salient_codes"] = pack(self.salient.codes & (1 << rest) - 1, rest)
            stored["salient_scale"] = self.salient.scale
            stored["salient_zero_point"] = self.salient.zero_point
        return stored | {"planes": pack(planes, 1)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], salient_bits: int) -> Self:
        """Undo `tensors`; shape is [out, in].

        Raises:
            ModelError: the tensors are not those of a matrix of this shape.
        """
        out_features, in_features = shape
        words, blocks = num_words(in_features, 1), tensors["step"].shape[-1]
        expected: dict[str, tuple[int, ...]] = {
            "planes": (len(tensors["planes"]), out_features, words),
            "step": (len(tensors["step"]), out_features, blocks),
            "offset": (len(tensors.get("offset", ())), out_features, blocks),
            "additive": (words,),
            "salient": (out_features, words),
            "salient_scale": (out_features,),
            "salient_zero_point": (out_features,),
        }
        check_shapes({name: tensors[name] for name in tensors if name in expected}, expected)
        planes = unpack(tensors["planes"], 1, in_features).bool()
        additive = tensors.get("additive")
        salient = None
        if "salient" in tensors:
            salient = _salient(tensors, in_features, planes[0], salient_bits)
            planes[0] &= ~salient.mask
        return cls(
            planes,
            tensors.get("offset"),
            tensors["step"],
            None if additive is None else unpack(additive, 1, in_features).bool(),
            salient,
            salient_bits,
        )

    def _split(self, offset: Tensor) -> Tensor:
        """o_k + s_k b1 with k = b2; without a second set, k is 0."""
        first = self._spread(offset[0]) + self._steps(0) * self.planes[0]
        if len(self.planes) == 1:
            return first
        second = self._spread(offset[1]) + self._steps(1) * self.planes[0]
        return torch.where(self.planes[1], second, first)

    def _steps(self, index: int) -> Tensor:
        return self._spread(self.step[index])

    def _spread(self, numbers: Tensor) -> Tensor:
        """[out, in] float32 of one number [out, blocks] a block."""
        columns = self.shape[1] // numbers.shape[1]
        return numbers.float().repeat_interleave(columns, dim=1)


def stored_bits(
    out_features: int,
    in_features: int,
    blocks: int,
    *,
    planes: int,
    numbers: int,
    column_mask: bool = False,
    salient: int | None = None,
    salient_bits: int = 8,
) -> int:
    """Bits that a matrix of planes takes on disk.

    Args:
        out_features: output rows.
        in_features: input columns.
        blocks: blocks of columns in a row.
        planes: bit planes.
        numbers: offsets and steps of a row and block, 16 bits each.
        column_mask: one bit a column says of which kind it is.
        salient: weights kept as codes; None without, which also saves their mask and grids.
        salient_bits: width of these codes, of which a plane holds the top bit.
    """
    row = WORD * num_words(in_features, 1)  # a plane's bits in a row
    bits = planes * out_features * row + 16 * numbers * out_features * blocks + column_mask * row
    if salient is not None:
        bits += out_features * (row + 16 + 8) + WORD * num_words(salient, salient_bits - 1)
    return bits


def _salient(tensors: Mapping[str, Tensor], in_features: int, top: Tensor, bits: int) -> Salient:
    """The salient weights, given the plane [out, in] that has their top bits."""
    mask = unpack(tensors["salient"], 1, in_features).bool()
    count = int(mask.sum())
    check_shapes(
        {"salient_codes": tensors["salient_codes"]}, {"salient_codes": (num_words(count, bits - 1),)}
    )
    codes = unpack(tensors["salient_codes"], bits - 1, count) | top[mask].to(torch.uint8) << bits - 1
    return Salient(mask, codes, tensors["salient_scale"], tensors["salient_zero_point"])
