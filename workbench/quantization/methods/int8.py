"""LLM.int8: weights in 8 bits a row, inputs in 8 bits a token, but for the input columns with outliers.

Dettmers, Lewis, Belkada, Zettlemoyer, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at
Scale", arXiv 2208.07339, section 3.1, vector-wise quantization. Codes are those of bitsandbytes, bit for
bit; the scale of a row is float16 here and float32 there. The inputs are the affair of
`quantization.activations`, whose threshold is the paper's alpha (section 3.2).

Letters: c [out, 1] the largest |w| of each row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.formats.affine import AffineWeight

BITS = 8
TOP = 127  # codes -127 .. 127, so that both signs reach as far


def quantize(weight: Tensor) -> AffineWeight:
    """Round each row of a matrix to 127 steps on either side of 0; rows do not interact.

    Args:
        weight: W [out, in], any float dtype; the arithmetic is float32.

    Raises:
        NumericsError: a weight is not finite, or too large for a float16 scale.
    """
    W = weight.float()
    c = W.abs().amax(1, keepdim=True)  # [out, 1]
    scale = (c / TOP).half()
    if not bool(torch.isfinite(scale).all()):
        raise NumericsError(
            "a weight is NaN, infinite or beyond a float16 scale; the model is damaged: take a sound one"
        )
    codes = (W * (TOP / torch.where(c == 0, 1, c))).round() + 2 ** (BITS - 1)
    return AffineWeight(codes.to(torch.uint8), scale, None, None, BITS)
