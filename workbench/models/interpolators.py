"""How the outputs of a frozen block and of its trainable copy are mixed (Control LLM, arXiv 2501.10979).

Letters: x [B, L, d] input of both; p [B, L, d] output of the pretrained block; e [B, L, d] output of the
expanded block, the copy; s sigmoid; w in [0, 1] the share of the copy; f a scalar. A layer's mix is

    lerp     w = s(f)                   y = (1 - w) p + w e
    slerp    w = s(f)                   y = (sin((1 - w) th) p + sin(w th) e) / sin(th) at angle th, per token
    dlerp    w_t = s(W [p_t; e_t] + b)  y as lerp
    dlerpin  w_t = s(W x_t + b)         y as lerp
    moe      w_t = softmax(W x_t + b)_e y_t = e_t where w_t > 1/2, else p_t
    prog     w = s(f)                   y = (1 - w) A p + w e
    proj     w = s(f)                   y as lerp; the divergence compares e with A p instead of p

As long as e equals p, y is p bit for bit for all but prog: `torch.lerp` adds a multiple of e - p, which is
zero, and slerp is lerp where the angle is small. A = I + 0.01 noise, so that prog is not the identity.

The language loss gives the gate of moe no gradient, because a choice has none: it learns through a
divergence that is weighted by w. Parameters are never `nn.Linear`, which quantization would take for a
linear of the block, and are read in `forward` alone, where ZeRO-3 has gathered them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

NOISE = 0.01  # standard deviation of A - I
SMALL_SINE = 1e-4  # below this sine of the angle between p and e, slerp is lerp


class Interpolator(nn.Module):
    """What all seven have in common: a mix by the copy's share.

    Args:
        hidden_size: d.
        factor: f, or b, at the start; None for w = 1, the copy alone.
    """

    factor: nn.Parameter | None

    def __init__(self, hidden_size: int, factor: float | None) -> None:
        super().__init__()
        del hidden_size
        self.factor = None if factor is None else nn.Parameter(torch.full((1,), float(factor)))

    def forward(self, x: Tensor, p: Tensor, e: Tensor, *, taught: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Mix two outputs.

        Args:
            x: [B, L, d].
            p: [B, L, d].
            e: [B, L, d].
            taught: give what the divergence compares e with; no gradient reaches p through it.

        Returns:
            y [B, L, d]; w in float32, [1] or [B, L, 1]; the teacher [B, L, d], or nothing in [0].
        """
        w = self.share(x, p, e)
        return self.mix(p, e, self.weight(w)), w, self.teacher(p.detach()) if taught else p.new_empty(0)

    def share(self, x: Tensor, p: Tensor, e: Tensor) -> Tensor:
        """The share w in float32, [1] or [B, L, 1]."""
        return self.constant_share()

    def weight(self, w: Tensor) -> Tensor:
        """What share w comes to in the mix."""
        return w

    def mix(self, p: Tensor, e: Tensor, w: Tensor) -> Tensor:
        """The mix y [B, L, d] from the weight of e."""
        return torch.lerp(p, e, w.to(p.dtype))

    def teacher(self, p: Tensor) -> Tensor:
        """What the divergence holds e to."""
        return p

    def constant_share(self) -> Tensor:
        """The share that factor alone says, float32 [1]: what is left of w where it depends on no token."""
        return torch.ones(1) if self.factor is None else self.factor.float().sigmoid()


class Lerp(Interpolator):
    """On the line between p and e."""

    def share(self, x: Tensor, p: Tensor, e: Tensor) -> Tensor:
        """The share w in float32, [1]; on the device of p also where nothing is stored."""
        return self.constant_share().to(p.device)


class Slerp(Lerp):
    """On the arc between p and e, token by token."""

    def mix(self, p: Tensor, e: Tensor, w: Tensor) -> Tensor:
        """The mix y [B, L, d] from the weight of e, computed in float32."""
        return spherical(p, e, w)


class Dlerp(Interpolator):
    """The share of each token from both outputs."""

    features = 2

    def __init__(self, hidden_size: int, factor: float | None) -> None:
        super().__init__(hidden_size, factor)
        self.linear = _uniform(1, self.features * hidden_size)

    def share(self, x: Tensor, p: Tensor, e: Tensor) -> Tensor:
        """The share w_t in float32, [B, L, 1]."""
        return self._sigmoid(torch.cat([p, e], dim=-1))

    def _sigmoid(self, features: Tensor) -> Tensor:
        return linear(features, self.linear, self.factor).float().sigmoid()


class DlerpIn(Dlerp):
    """The share of each token from the input."""

    features = 1

    def share(self, x: Tensor, p: Tensor, e: Tensor) -> Tensor:
        """The share w_t in float32, [B, L, 1]."""
        return self._sigmoid(x)


class MoE(Interpolator):
    """A choice of p or e for each token; the factor is what the copy's logit has ahead at the start."""

    def __init__(self, hidden_size: int, factor: float | None) -> None:
        super().__init__(hidden_size, factor=None)
        self.linear = _uniform(2, hidden_size)
        self.bias = nn.Parameter(torch.tensor([0.0, factor or 0.0]))

    def share(self, x: Tensor, p: Tensor, e: Tensor) -> Tensor:
        """The gate of e in float32, [B, L, 1]."""
        return linear(x, self.linear, self.bias).float().softmax(dim=-1)[..., 1:]

    def weight(self, w: Tensor) -> Tensor:
        """1 where e is chosen, else 0; without gradient."""
        return (w > 0.5).float()

    def constant_share(self) -> Tensor:
        """The gate of e that the bias alone says, float32 [1]."""
        return self.bias.float().softmax(dim=0)[1:]


class Prog(Lerp):
    """A progressive network's lateral connection: p goes through a linear."""

    def __init__(self, hidden_size: int, factor: float | None) -> None:
        super().__init__(hidden_size, factor)
        self.linear = nn.Parameter(torch.eye(hidden_size) + NOISE * torch.randn(hidden_size, hidden_size))

    def mix(self, p: Tensor, e: Tensor, w: Tensor) -> Tensor:
        """The mix y [B, L, d] from the weight of e."""
        return super().mix(linear(p, self.linear).to(e.dtype), e, w)


class Proj(Lerp):
    """Lerp whose divergence lets e differ from p by a linear that is learned."""

    def __init__(self, hidden_size: int, factor: float | None) -> None:
        super().__init__(hidden_size, factor)
        self.linear = nn.Parameter(torch.eye(hidden_size) + NOISE * torch.randn(hidden_size, hidden_size))

    def teacher(self, p: Tensor) -> Tensor:
        """A p."""
        return linear(p, self.linear)


INTERPOLATORS: dict[str, type[Interpolator]] = {
    "lerp": Lerp,
    "slerp": Slerp,
    "dlerp": Dlerp,
    "dlerpin": DlerpIn,
    "moe": MoE,
    "prog": Prog,
    "proj": Proj,
}
CHOOSING = {"dlerp", "dlerpin", "moe"}  # w differs from token to token, so that it cannot be 1 for all


def spherical(p: Tensor, e: Tensor, w: Tensor) -> Tensor:
    """Slerp of vectors that keep their lengths; lerp for those whose angle is close to 0 or to pi.

    The angle is 2 atan2(|p^ - e^|, |p^ + e^|) of the unit vectors: unlike the arc cosine it is exactly 0
    for equal vectors, and precise for nearly equal ones.

    Args:
        p: [..., d].
        e: [..., d].
        w: share of e in float32, [1] or [..., 1].

    Returns:
        [..., d] in the dtype of p; computed in float32.
    """
    start, end = p.float(), e.float()
    unit_p = nn.functional.normalize(start, dim=-1)
    unit_e = nn.functional.normalize(end, dim=-1)
    apart, along = ((unit_p + sign * unit_e).norm(dim=-1, keepdim=True) for sign in (-1, 1))
    angle = 2 * torch.atan2(apart, along)  # [..., 1]
    straight = angle.sin() < SMALL_SINE
    th = torch.where(straight, math.pi / 2, angle)  # keeps the unused arc finite, and its gradient
    arc = (((1 - w) * th).sin() * start + (w * th).sin() * end) / th.sin()
    return torch.where(straight, torch.lerp(start, end, w), arc).to(p.dtype)


def _uniform(rows: int, columns: int) -> nn.Parameter:
    """Weight [rows, columns] as `nn.Linear` draws it."""
    bound = 1 / math.sqrt(columns)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
