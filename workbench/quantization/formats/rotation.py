"""Random orthogonal matrices that cost a seed to store and far less than n^2 to apply.

    kronecker   V = P' (A x B) P, with Haar-random orthogonal A [p, p] and B [q, q], p q = n, p <= q as
                close as they can be, and random permutations P, P' (Chee et al., arXiv 2307.13304, section 5)
    hadamard    V = (C x H) diag(u), with random signs u, the normalised Hadamard matrix H [2^k, 2^k] and
                n = 2^k m, m odd; C [m, m] is Haar-random (Tseng et al., arXiv 2402.04396, section 3,
                where C is a Hadamard matrix too: none exists for odd m > 1, and ours serves every n)

A seed means the same matrix on every machine and in every later version: the numbers are drawn by numpy's
RandomState, the one generator whose stream is promised never to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor

Transform = Literal["kronecker", "hadamard"]
Side = Literal["out", "in"]


@dataclass(frozen=True)
class Rotation:
    """An orthogonal V [n, n].

    Attributes:
        left: A or C, [p, p] float64.
        right: B, [q, q] float64; None for the Hadamard matrix of size n / p.
        before: the columns of x that `apply` reads, in its order; [n] int64.
        signs: [n] float64, what they are multiplied with.
        after: the order in which results are put out; [n] int64.
    """

    left: Tensor
    right: Tensor | None
    before: Tensor
    signs: Tensor
    after: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Turn every vector of the last axis of x [..., n]: x V^T."""
        ordered = x[..., self.before.to(x.device)] * self.signs.to(x)
        blocks = self.left.to(x) @ ordered.unflatten(-1, (len(self.left), -1))  # [..., p, q]
        turned = hadamard(blocks) if self.right is None else blocks @ self.right.to(x).T
        return turned.flatten(-2)[..., self.after.to(x.device)]

    def undo(self, x: Tensor) -> Tensor:
        """Turn back: x V, the inverse of `apply`."""
        ordered = x[..., self.after.argsort().to(x.device)]
        blocks = self.left.to(x).T @ ordered.unflatten(-1, (len(self.left), -1))
        turned = hadamard(blocks) if self.right is None else blocks @ self.right.to(x)
        return (turned.flatten(-2) * self.signs.to(x))[..., self.before.argsort().to(x.device)]


def rotation(size: int, transform: Transform, seed: int, side: Side) -> Rotation:
    """The orthogonal matrix of a seed.

    Args:
        size: n, any positive number.
        transform: how it is made.
        seed: 0 to 2**31 - 1.
        side: of the weight; the two sides of a square weight are turned by different matrices.
    """
    random = RandomState([seed, ("out", "in").index(side)])
    as_it_is = torch.arange(size)
    if transform == "hadamard":
        signs = torch.from_numpy(2.0 * random.randint(0, 2, size) - 1)
        odd = size // (size & -size)
        return Rotation(_haar(odd, random), None, as_it_is, signs, as_it_is)
    p = next(p for p in range(isqrt(size), 0, -1) if size % p == 0)
    left, right = _haar(p, random), _haar(size // p, random)
    before, after = (torch.from_numpy(random.permutation(size)) for _ in range(2))
    return Rotation(left, right, before, torch.ones(size, dtype=torch.float64), after)


def hadamard(x: Tensor) -> Tensor:
    """Multiply the last axis [..., 2^k] by the normalised Hadamard matrix, its own inverse, in k passes."""
    size, span = x.shape[-1], 1
    result: Tensor = x
    while span < size:
        pairs = result.unflatten(-1, (-1, 2, span))
        low, high = pairs.unbind(-2)
        result = torch.stack([low + high, low - high], dim=-2).flatten(-3)
        span *= 2
    scaled: Tensor = result / size**0.5
    return scaled


def _haar(size: int, random: RandomState) -> Tensor:
    """A uniformly random orthogonal matrix [size, size], float64."""
    Q, R = np.linalg.qr(random.standard_normal((size, size)))
    return torch.from_numpy(Q * np.sign(np.diag(R)))  # the signs make Q unique, and uniform
