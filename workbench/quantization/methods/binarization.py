"""Binarization of sets of weights, each row by itself: w^ = mu + alpha sign(w - mu) in closed form.

With mu given, alpha = mean |w - mu| is the least-squares scale (Rastegari et al., arXiv 1603.05279,
equation 6); mu is the mean of the set, as PB-LLM (arXiv 2310.00034) and BiLLM (arXiv 2402.04291) have it.
The numbers are kept in 16 bits, and rounded before signs are taken: what is computed here is what the
stored numbers decode to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from workbench.errors import NumericsError


class Binarized(NamedTuple):
    """What a set becomes; levels are offset and offset + step.

    Attributes:
        bits: [out, n], bool, the upper level.
        offset: mu - alpha, [out], float16.
        step: 2 alpha, [out], float16.
        values: w^ [out, n], of every weight, in the set or not.
    """

    bits: Tensor
    offset: Tensor
    step: Tensor
    values: Tensor


def binarize(W: Tensor, members: Tensor, *, count_all: bool = False) -> Binarized:
    """Binarize the members of each row.

    Args:
        W: [out, n].
        members: [out, n] or [1, n], bool.
        count_all: mean and scale over all n weights, those that are no members counting as zeros.

    Raises:
        NumericsError: a level is beyond float16.
    """
    inside = members.to(W.dtype)
    count = inside.new_full((1, 1), W.shape[1]) if count_all else inside.sum(1, keepdim=True).clamp(min=1)
    mu = (W * inside).sum(1, keepdim=True) / count
    deviations = (W * inside - mu).abs() if count_all else (W - mu).abs() * inside
    alpha = deviations.sum(1, keepdim=True) / count
    offset, step = in_half(mu - alpha), in_half(2 * alpha)
    bits = W - offset.to(W) > step.to(W) / 2
    return Binarized(bits, offset[:, 0], step[:, 0], offset.to(W) + step.to(W) * bits)


def in_half(numbers: Tensor) -> Tensor:
    """The numbers in float16.

    Raises:
        NumericsError: one does not fit, or is NaN.
    """
    half = numbers.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise NumericsError(
            "a weight is NaN, infinite or beyond float16; the model is damaged: take a sound one"
        )
    return half
