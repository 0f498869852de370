"""Quantized activations: the inputs of a linear as integers, scaled token by token as they come.

    s = max|x| / (2^(b-1) - 1) over the features of a token,  x^ = s round(x / s)

Sources: Xiao et al., arXiv 2211.10438, per-token dynamic quantization; Dettmers et al., arXiv 2208.07339,
section 3.2, for the columns with outliers that stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-5  # of a token's largest value, so that a token of zeros has a scale


@dataclass(frozen=True)
class Activations:
    """How the inputs of quantized linears are rounded.

    Attributes:
        bits: width, 2 to 8.
        threshold: input columns in which any token reaches it stay as they are; 0: none do.
    """

    bits: int
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"activation bits {self.bits} are not supported; activations have 2 to 8 bits")

    def round(self, x: Tensor) -> Tensor:
        """From x [..., in] to x^ [..., in] in the dtype of x, on a symmetric grid of each token."""
        if not self.threshold:
            return self._rounded(x)
        outliers = (x.abs() >= self.threshold).flatten(0, -2).any(0)  # [in]
        return torch.where(outliers, x, self._rounded(x.masked_fill(outliers, 0)))

    def _rounded(self, x: Tensor) -> Tensor:
        top = (1 << (self.bits - 1)) - 1
        wide = x.float()
        step = wide.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / top  # [..., 1]
        return ((wide / step).round() * step).to(x.dtype)
