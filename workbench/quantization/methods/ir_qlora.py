"""IR-QLoRA: blocks are shifted before they are rounded to NF4, and updates have a short cut around them.

Qin, Ma, Zheng et al., "Accurate LoRA-Finetuning Quantization of LLMs via Information Retention", arXiv
2402.05445: information calibration quantization (ICQ, section 3.2), the shift tau of a block whose codes
have the highest entropy, and information elastic connection (IEC, section 3.3), parameter-free maps
around either matrix of the update. Ours: plain NF4, tau = 0, is tried last, so that no block has a lower
entropy than there; shifts of equal entropy give way to the one nearest to the median; and where the
rank does not divide a width, both are grouped by their greatest common divisor.

    tau = tau0 + f max|w - tau0|,  f in [-lambda sigma, lambda sigma]        ICQ
    y = W^ x + s U2(U1(x)),  U1(x) = A x + beta1 P x,  U2(x) = B x + beta2 T x    IEC

Letters: w a block of weights, tau0 its median; sigma the deviation of a normal distribution on the levels
of NF4; A [r, in], B [out, r] the update; P, T `connection`s, the mean of neighbours and their repetition;
beta1, beta2 trained, 0 at the start; lambda as in the recipe.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import linear

from workbench.quantization.formats.codebook import (
    TABLES,
    BlockValues,
    CodebookWeight,
    in_blocks,
    levels_of,
)
from workbench.quantization.methods import nf4
from workbench.recipe.quantization import IrQlora, Nf4

SIGMA = 0.5411  # 1 / Phi^-1(0.9677083): the outer level of NF4 stands for this quantile
UNITS = 2**32  # of an entropy, a bit


def quantize(weight: Tensor, cfg: IrQlora, rounding: Nf4) -> CodebookWeight:
    """Shift the blocks of a matrix, then round them to NF4.

    Args:
        weight: W [out, in], any float dtype; the arithmetic is float32.
        cfg: how far and how finely shifts are searched.
        rounding: block size and double quantization, also of the shifts; its table has no say.

    Raises:
        NumericsError: a weight is not finite.
    """
    w, size = weight.float().flatten(), rounding.block_size
    whole = len(w) // size * size
    parts = [w[:whole].view(-1, size), w[whole:][None]]  # the last block may be shorter
    tau = torch.cat([shift(blocks, cfg) for blocks in parts if blocks.numel()])  # [blocks]
    shifted = w - tau.repeat_interleave(size)[: len(w)]
    rounded = nf4.quantize(shifted.view(weight.shape), rounding.model_copy(update={"table": "nf4"}))
    return replace(rounded, tau=BlockValues.of(tau, double_quantized=rounding.double_quantization))


def shift(blocks: Tensor, cfg: IrQlora) -> Tensor:
    """The shift of each block, [blocks], whose codes have the highest entropy.

    Args:
        blocks: w [blocks, n], float32.
        cfg: how far and how finely it is searched.
    """
    ordered = blocks.sort(1).values
    tau0 = ordered[:, (blocks.shape[1] - 1) // 2]
    reach = torch.maximum(tau0 - ordered[:, 0], ordered[:, -1] - tau0)
    furthest = cfg.reach * SIGMA
    steps = sorted(range(-cfg.steps, cfg.steps + 1), key=abs) if furthest else [0]
    tau, least = tau0, torch.full_like(tau0, torch.iinfo(torch.int64).max, dtype=torch.int64)
    candidates = (tau0 + furthest * step / cfg.steps * reach for step in steps)
    for candidate in chain(candidates, [torch.zeros_like(tau0)]):
        order = _order(_counts(ordered - candidate[:, None]))
        tau, least = torch.where(order < least, candidate, tau), torch.minimum(order, least)
    return tau


def entropy(codes: Tensor, block_size: int) -> Tensor:
    """Entropy of the 16 codes in each block, [blocks], float64, in bits.

    Args:
        codes: [out, in], uint8, in [0, 16).
        block_size: neighbours in the flattened matrix; the last block may have fewer.
    """
    filled = in_blocks(codes.flatten() + 1, block_size)  # 0 where the last block has ended
    counts = torch.stack([(filled == code + 1).sum(1) for code in range(len(TABLES["nf4"]))], 1)
    n = counts.sum(1).double()
    return n.log2() - _order(counts) / (n * UNITS)


def connection(size: int, to: int, like: Tensor) -> Tensor:
    """The matrix [to, size] that an elastic connection is, on the device and in the dtype of a tensor.

    With g = gcd(size, to): the mean of each size / g neighbours, repeated to / g times. So it is P, the
    mean of in / r inputs, or T, the repetition of a value out / r times, where r divides both.
    """
    return connect(torch.eye(size, dtype=like.dtype, device=like.device), to).T.contiguous()


def connect(x: Tensor, to: int) -> Tensor:
    """An elastic connection of x [..., size], [..., to]."""
    size = x.shape[-1]
    common = math.gcd(size, to)
    groups: Tensor = x.unflatten(-1, (common, size // common))
    return groups.mean(-1).repeat_interleave(to // common, -1)


def update(x: Tensor, A: Tensor, B: Tensor, beta1: Tensor, beta2: Tensor) -> Tensor:
    """U2(U1(x)) [..., out] of inputs x [..., in]; the betas are scalars."""
    x1 = linear(x, A) + beta1 * connect(x, len(A))
    return linear(x1, B) + beta2 * connect(x1, len(B))


def merged(A: Tensor, B: Tensor, beta1: Tensor, beta2: Tensor) -> tuple[Tensor, Tensor]:
    """A + beta1 P and B + beta2 T: the same update without connections."""
    P, T = connection(A.shape[1], len(A), A), connection(B.shape[1], len(B), B)
    return A + beta1 * P, B + beta2 * T


def _counts(ordered: Tensor) -> Tensor:
    """How often each code of NF4 occurs in blocks [blocks, n] of ascending values, [blocks, 16]."""
    largest = torch.maximum(-ordered[:, :1], ordered[:, -1:])
    scaled = (ordered * (1 / largest.clamp(min=1e-38))).contiguous()  # as nf4 has it
    levels = levels_of("nf4").to(scaled.device)
    middles = ((levels[:-1] + levels[1:]) / 2).expand(len(scaled), -1).contiguous()
    below = torch.searchsorted(scaled, middles, right=True)  # [blocks, 15], values up to each middle
    ends = below.new_zeros(len(below), 1), below.new_full((len(below), 1), ordered.shape[1])
    return torch.diff(below, prepend=ends[0], append=ends[1])


def _order(counts: Tensor) -> Tensor:
    """Sum of c log2 c over the counts [blocks, 16] of codes, [blocks], int64, in UNITS.

    Whole numbers, because equal entropies must be equal whatever the order of the codes.
    """
    c = torch.arange(int(counts.max()) + 1, dtype=torch.float64)
    terms: Tensor = (torch.special.xlogy(c, c) * (UNITS / math.log(2))).round().long().to(counts.device)
    return terms.take(counts).sum(1)
