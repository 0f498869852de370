"""What calibrated methods know about a linear: second moments of its inputs."""

from __future__ import annotations

import torch
from torch import Tensor


class Hessian:
    """H = 2/N * sum of x x^T over the N tokens seen: the Hessian of the squared output error of any row of W.

    Kept as a running mean in float32, so that it neither grows with the calibration set nor depends on
    how the set is cut into batches.
    """

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.matrix = torch.zeros(in_features, in_features, device=device)
        self.num_tokens = 0

    def update(self, inputs: Tensor) -> None:
        """Add the tokens of inputs [..., in], any float dtype."""
        x = inputs.reshape(-1, inputs.shape[-1]).float()  # [tokens, in]
        total = self.num_tokens + x.shape[0]
        self.matrix.addmm_(x.T, x, beta=self.num_tokens / total, alpha=2 / total)
        self.num_tokens = total


def relative_output_error(weight: Tensor, approximation: Tensor, hessian: Tensor) -> float:
    """||(W - W^) X|| / ||W X|| over the calibration inputs, from their second moments alone.

    Args:
        weight: W [out, in].
        approximation: W^ [out, in].
        hessian: H [in, in], any multiple of X X^T.
    """
    error = weight - approximation
    numerator, denominator = ((e @ hessian * e).sum().clamp(min=0) for e in (error, weight))
    return float((numerator / denominator).sqrt()) if denominator > 0 else 0.0
