"""DARE: drop changes at random and rescale the rest (Yu et al., arXiv 2311.03099, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def merge(base: Tensor, trained: Tensor, weight: float, drop: float, generator: torch.Generator) -> Tensor:
    """theta_0 + w (1 - m) delta / (1 - p), with delta = theta - theta_0 and m drawn from Bernoulli(p).

    Args:
        base: theta_0, float32.
        trained: theta, shaped alike.
        weight: w in [0, 1].
        drop: p in [0, 1).
        generator: on the device of the tensors.
    """
    dropped = torch.rand(base.shape, generator=generator, device=base.device) < drop
    delta = (trained - base).masked_fill(dropped, 0.0) / (1 - drop)
    return base + weight * delta
