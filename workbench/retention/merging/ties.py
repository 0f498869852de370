"""TIES: trim, elect sign, and merge (Yadav et al., arXiv 2306.01708, algorithm 1).

Task vectors tau_t = theta_t - theta_0. With a single one the election has one voter, and what is left
of the algorithm is the trimming.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def merge(base: Tensor, trained: Sequence[Tensor], weight: float, keep: float) -> Tensor:
    """theta_0 + w tau, with tau the merged task vectors of the trained tensors.

    Args:
        base: theta_0, float32.
        trained: theta_t, each shaped as `base`.
        weight: w, lambda in the paper.
        keep: k, share of each task vector that is kept, in (0, 1].
    """
    trimmed = torch.stack([trim(tensor - base, keep) for tensor in trained])  # [t, ...]
    elected = trimmed.sum(0).sign()  # of the larger total movement
    agreeing = (trimmed.sign() == elected) & (trimmed != 0)
    voters = agreeing.sum(0).clamp(min=1)
    return base + weight * (trimmed * agreeing).sum(0) / voters


def trim(vector: Tensor, keep: float) -> Tensor:
    """The share `keep` of the entries of largest magnitude, at least one; the others become 0."""
    count = max(1, round(keep * vector.numel()))
    chosen = vector.flatten().abs().topk(count).indices
    kept = torch.zeros_like(vector).flatten()
    kept[chosen] = vector.flatten()[chosen]
    return kept.reshape(vector.shape)
