"""Products by weights that are kept decoded, on a CPU.

Few rows of x take as long as the weight takes to be read; for more of them a processor that does not
multiply bfloat16 itself is faster in float32, into which the weight is widened a chunk at a time. Letters:
M rows of x, N out, K in.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear

MOST_ROWS = 8  # of x that are multiplied in bfloat16 by software
CHUNK_WEIGHTS = 2**20  # widened at a time


def forward(x: Tensor, weight: Tensor) -> Tensor:
    """Compute y [M, N], dtype of x [M, K], of a weight [N, K] in any float dtype, summed in float32."""
    if weight.dtype == torch.float32 or x.dtype != weight.dtype:
        return linear(x.float(), weight.float()).to(x.dtype)
    if x.shape[0] <= MOST_ROWS or hardware():
        return linear(x, weight)
    y, factor = x.new_empty(len(x), len(weight)), x.float()
    together = max(CHUNK_WEIGHTS // weight.shape[1], 1)
    for start in range(0, len(weight), together):
        outputs = slice(start, start + together)
        y[:, outputs] = linear(factor, weight[outputs].float())
    return y


def backward(dy: Tensor, weight: Tensor) -> Tensor:
    """Compute dx [M, K] = dy W, dtype of dy [M, N], summed in float32."""
    if weight.dtype == torch.float32:
        return (dy.float() @ weight).to(dy.dtype)
    dx = torch.zeros(len(dy), weight.shape[1])
    factor = dy.float()
    together = max(CHUNK_WEIGHTS // weight.shape[1], 1)
    for start in range(0, len(weight), together):
        outputs = slice(start, start + together)
        dx.addmm_(factor[:, outputs], weight[outputs].float())
    return dx.to(dy.dtype)


@cache
def hardware() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_bf16", False) or known.get("avx512_bf16", False))
