"""Linear interpolation of weights, as in WiSE-FT (Wortsman et al., arXiv 2109.01903, equation 1)."""

from __future__ import annotations

from torch import Tensor


def merge(base: Tensor, trained: Tensor, weight: float) -> Tensor:
    """(1 - w) theta_0 + w theta.

    Args:
        base: theta_0, float32.
        trained: theta, shaped alike.
        weight: w in [0, 1].
    """
    return base.lerp(trained, weight)
