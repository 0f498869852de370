"""Spherical interpolation of weights (Shoemake, "Animating rotation with quaternion curves", 1985).

A tensor is taken as one vector. Between directions that are nearly parallel or opposite, or where one
is 0, the arc is not defined well, and the straight line takes its place.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARALLEL = 1e-4  # sine of the angle below which the line is as good as the arc


def merge(base: Tensor, trained: Tensor, weight: float) -> Tensor:
    """sin((1 - w) omega) / sin(omega) theta_0 + sin(w omega) / sin(omega) theta, omega the angle between.

    Args:
        base: theta_0, float32.
        trained: theta, shaped alike.
        weight: w in [0, 1].
    """
    x, y = base.double().flatten(), trained.double().flatten()
    lengths = x.norm() * y.norm()
    cosine = x.dot(y) / lengths if lengths > 0 else torch.ones_like(lengths)
    omega = cosine.clamp(-1, 1).acos()
    if omega.sin() < PARALLEL or weight in (0, 1):
        return base.lerp(trained, weight)
    near, far = ((1 - weight) * omega).sin() / omega.sin(), (weight * omega).sin() / omega.sin()
    return (near * x + far * y).to(base.dtype).reshape(base.shape)
