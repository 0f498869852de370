"""QLoRA: low-rank updates, trained in full precision, beside matrices that are frozen in NF4.

Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv
2305.14314, section 3, equation 5; the update is that of LoRA (Hu et al., arXiv 2106.09685, section 4.1).
The rounding is that of `nf4`. In the end the update is stored in 16 bits beside the codes: added to them
it would have to be rounded again.

    y = W^ x + s B A x

Letters: W^ [out, in] rounded, frozen; A [r, in], B [out, r] the update; s = alpha / r.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear


def start(shape: tuple[int, int], rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The update before training, which changes nothing: A at random, B zero.

    Args:
        shape: [out, in] of the matrix.
        rank: r.
        generator: draws A, on the CPU.

    Returns:
        A [r, in], uniform in [-1/sqrt(in), 1/sqrt(in)], and B [out, r], float32.
    """
    out_features, in_features = shape
    reach = 1 / math.sqrt(in_features)
    A = torch.rand(rank, in_features, generator=generator) * (2 * reach) - reach
    return A, torch.zeros(out_features, rank)


def update(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """B A x [..., out] of inputs x [..., in]."""
    return linear(linear(x, A), B)
