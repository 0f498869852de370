"""The codebook format: 4-bit codes into a fixed table of 16 levels, one factor per block of weights.

    w^ = absmax * TABLES[table][code] (+ tau)

Blocks are runs of neighbouring weights of the flattened matrix, so that a block may go on into the
next row. The absmax of the blocks, and a shift tau where a method uses one, are float32, or double
quantized: less their mean, in runs of 256, an 8-bit index each into the dynamic map, times the
largest of the run.

Sources: NF4 and double quantization, Dettmers et al., arXiv 2305.14314, section 3 and appendix E;
the dynamic map, Dettmers, arXiv 1511.04561, section 2. Tables, order of codes and arithmetic are those of
bitsandbytes, whose codes these equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, Self

import torch
from lowbit.affine_linear import num_words, pack, unpack
from torch import Tensor
from torch.nn.functional import pad

from workbench.quantization.formats.shapes import check_shapes

Table = Literal["nf4", "fp4"]

# NF4: quantiles of the standard normal distribution between 1 - 0.9677083 and 0.9677083, eight negative,
# zero and seven positive, scaled to [-1, 1]. FP4: sign, two bits of exponent, one of mantissa, by code.
TABLES: dict[Table, tuple[float, ...]] = {
    "nf4": (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    "fp4": tuple(sign * level / 12 for sign in (1, -1) for level in (0, 0.0625, 8, 12, 4, 6, 2, 3)),
}
CODE_BITS = 4
RUN = 256  # values of blocks that are double quantized together


@dataclass(frozen=True)
class BlockValues:
    """One number a block: as it is, or double quantized.

    Attributes:
        stored: [blocks], the float32 numbers, or uint8 indices into the dynamic map.
        scale: [ceil(blocks / 256)], float32, the largest |number - offset| of each run; None if not double
            quantized, as offset.
        offset: [1], float32, the mean of the numbers.
    """

    stored: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None

    @classmethod
    def of(cls, values: Tensor, *, double_quantized: bool) -> Self:
        """Store numbers [blocks], float32.

        Source: Dettmers et al., arXiv 2305.14314, section 3, double quantization.
        """
        if not double_quantized:
            return cls(values)
        offset = values.mean()
        runs = pad(values - offset, (0, -len(values) % RUN)).unflatten(0, (-1, RUN))  # [runs, 256]
        scale = runs.abs().amax(1)
        indices = nearest(runs / scale.clamp(min=1e-38)[:, None], dynamic_map().to(values.device))
        return cls(indices.flatten()[: len(values)], scale, offset[None])

    def decode(self) -> Tensor:
        """The numbers [blocks], float32."""
        if self.scale is None or self.offset is None:
            return self.stored
        scale = self.scale.repeat_interleave(RUN)[: len(self.stored)]
        return dynamic_map().to(scale.device)[self.stored.int()] * scale + self.offset

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What is on disk, under this name."""
        parts = {name: self.stored, f"{name}_scale": self.scale, f"{name}_offset": self.offset}
        return {key: tensor for key, tensor in parts.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], name: str) -> Self:
        """Undo `tensors`."""
        return cls(tensors[name], tensors.get(f"{name}_scale"), tensors.get(f"{name}_offset"))


@dataclass(frozen=True)
class CodebookWeight:
    """A quantized matrix, W = absmax * TABLES[table][code] + tau.

    Attributes:
        codes: [out, in], uint8, in [0, 16).
        absmax: the factor of each block.
        tau: the shift of each block, or None.
        table: which levels.
        block_size: weights in a block; the last block may have fewer.
    """

    codes: Tensor
    absmax: BlockValues
    tau: BlockValues | None
    table: Table
    block_size: int

    @property
    def stored_bits(self) -> int:
        """Bits that the matrix takes on disk, everything included."""
        out_features, in_features = self.codes.shape
        return stored_bits(
            out_features,
            in_features,
            self.block_size,
            double_quantized=self.absmax.scale is not None,
            shifted=self.tau is not None,
        )

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        levels = levels_of(self.table).to(self.codes.device)[self.codes.flatten().int()]
        blocks = in_blocks(levels, self.block_size) * self.absmax.decode()[:, None]
        if self.tau is not None:
            blocks = blocks + self.tau.decode()[:, None]
        return blocks.flatten()[: self.codes.numel()].view(self.codes.shape)

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk: codes packed as one stream, eight in a word, and the numbers of the blocks."""
        shift = {} if self.tau is None else self.tau.tensors("tau")
        return {"codes": pack(self.codes.flatten(), CODE_BITS)} | self.absmax.tensors("absmax") | shift

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], table: Table, block_size: int
    ) -> Self:
        """Undo `tensors`; shape is [out, in].

        Raises:
            ModelError: the tensors are not those of a matrix of this shape.
        """
        blocks = -(-shape[0] * shape[1] // block_size)
        expected: dict[str, tuple[int, ...]] = {"codes": (num_words(shape[0] * shape[1], CODE_BITS),)}
        for name in ("absmax", "tau"):
            expected |= {name: (blocks,), f"{name}_scale": (-(-blocks // RUN),), f"{name}_offset": (1,)}
        check_shapes(tensors, expected)
        codes = unpack(tensors["codes"], CODE_BITS, shape[0] * shape[1]).view(shape)
        absmax = BlockValues.from_tensors(tensors, "absmax")
        tau = BlockValues.from_tensors(tensors, "tau") if "tau" in tensors else None
        return cls(codes, absmax, tau, table, block_size)


def stored_bits(
    out_features: int, in_features: int, block_size: int, *, double_quantized: bool, shifted: bool = False
) -> int:
    """Bits that a codebook matrix takes on disk: packed codes, and one or two numbers a block.

    Args:
        out_features: output rows.
        in_features: input columns.
        block_size: weights in a block.
        double_quantized: the numbers of the blocks are.
        shifted: blocks have a tau.
    """
    blocks = -(-out_features * in_features // block_size)
    numbers = 8 * blocks + 32 * -(-blocks // RUN) + 32 if double_quantized else 32 * blocks
    return 32 * num_words(out_features * in_features, CODE_BITS) + numbers * (1 + shifted)


def in_blocks(values: Tensor, block_size: int) -> Tensor:
    """[blocks, block_size] of a flat tensor; the last block is filled with zeros."""
    return pad(values, (0, -len(values) % block_size)).view(-1, block_size)


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Index of the nearest level, uint8; half way between two, the lower level.

    Args:
        values: [...], float32.
        levels: [n], float32, n at most 256, in any order.
    """
    ordered, order = levels.sort(stable=True)
    index = torch.bucketize(values, (ordered[:-1] + ordered[1:]) / 2)
    return order[index].to(torch.uint8)


def levels_of(table: Table) -> Tensor:
    """The 16 levels of a table, [16], float32."""
    return torch.tensor(TABLES[table])


@cache
def dynamic_map() -> Tensor:
    """256 levels of [-1, 1], [256], float32, ascending: relative precision over seven decades.

    Decade 10^(i - 6) has 2^i levels of either sign, i = 0 .. 6, at the midpoints of equal parts of [0.1, 1];
    0 and 1 are the other two.
    """
    with torch.inference_mode(False):  # kept for good: it must serve outside of inference too
        edges = [torch.linspace(0.1, 1, 2**i + 1) for i in range(7)]
        decades = [10.0 ** (i - 6) * ((edge[:-1] + edge[1:]) / 2) for i, edge in enumerate(edges)]
        positive = torch.cat(decades)
        return torch.cat([-positive, torch.tensor([0.0, 1.0]), positive]).sort().values
