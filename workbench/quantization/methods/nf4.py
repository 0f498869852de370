"""NF4 and FP4: every weight to the nearest of 16 fixed levels, scaled to the largest of its block.

Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv
2305.14314, section 3, equations 4 and 5: the levels of NF4 are quantiles of a normal distribution,
so that normal weights use all codes equally often. Codes, absmax and double quantization are those of
bitsandbytes, bit for bit.

Letters: c absmax of a block, the paper's quantization constant c2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.formats.codebook import (
    BlockValues,
    CodebookWeight,
    in_blocks,
    levels_of,
    nearest,
)
from workbench.recipe.quantization import Nf4


def quantize(weight: Tensor, cfg: Nf4) -> CodebookWeight:
    """Round a matrix to the levels of its blocks.

    Blocks run on over the ends of rows, and double quantization takes the mean over all blocks: matrices
    must not be stacked.

    Args:
        weight: W [out, in], any float dtype; the arithmetic is float32.
        cfg: table, block size, double quantization.

    Raises:
        NumericsError: a weight is not finite.
    """
    blocks = in_blocks(weight.float().flatten(), cfg.block_size)  # [blocks, block_size]
    c = blocks.abs().amax(1)
    if not bool(torch.isfinite(c).all()):
        raise NumericsError("a weight is NaN or infinite; the model is damaged: take a sound one")
    # times the reciprocal, as bitsandbytes has it: a quotient is at times one rounding away
    scaled = (blocks * (1 / c.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    codes = nearest(scaled, levels_of(cfg.table).to(weight.device))
    codes = codes.flatten()[: weight.numel()].view(weight.shape)
    absmax = BlockValues.of(c, double_quantized=cfg.double_quantization)
    return CodebookWeight(codes, absmax, None, cfg.table, cfg.block_size)
