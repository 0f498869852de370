"""DB-LLM: two binary planes with a scale each, tuned while the planes follow the scales.

Chen, Lv et al., "DB-LLM: Accurate Dual-Binarization for Efficient LLMs", arXiv 2402.11960, flexible dual
binarization. No code was published, so some of this is our definition:

    start       s is searched for the least squared error, and a group may be mirrored, -2s .. s
    gradient    that of fixed planes, which are taken anew at every step
    variable    the relative change of a scale, a = a_start (1 + change): one learning rate suits all
                matrices, and weight decay pulls to the start instead of to 0

The other half of the method, the distillation that the scales are tuned by, is in `retention/deviation.py`.

Letters: W [out, groups, group_size] weights, frozen; a1, a2 [out, groups, 1] scales; b1, b2 in {0, 1}
planes, shaped as W; s > 0 the distance of neighbouring levels at the start.

    W^ = a1 b1 + a2 b2, one of the levels a2, 0, a1 + a2, a1;  at the start a1 = 2s, a2 = -s
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from workbench.quantization.formats.planes import PlanesWeight
from workbench.quantization.linear import QuantizedLinear
from workbench.quantization.methods.binarization import in_half

SCALES = 40  # candidates for s: i / 40 of the symmetric 2-bit scale


class DualBinaryLinear(nn.Module):
    """y = x W^^T + b, trained in the scales alone.

    Attributes:
        weight: W [out, in], frozen.
        bias: [out] or None, frozen.
        start: a1 and a2 [2, out, groups] at the start.
        change: [2, out, groups], how much larger they are by now, relative to the start; trained.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, start: Tensor) -> None:
        """Begin with scales `start` [2, out, groups]; nothing is copied."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.start: Tensor
        self.register_buffer("start", start)
        self.change = nn.Parameter(torch.zeros_like(start))

    @classmethod
    def of(cls, linear: nn.Linear, group_size: int | Literal["channel"]) -> Self:
        """Take over a linear layer.

        Args:
            linear: its weight and bias are kept, not copied.
            group_size: columns that share scales; divides in.

        Raises:
            NumericsError: a weight is not finite, or too large for a float16 scale.
        """
        weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        columns = linear.in_features if group_size == "channel" else group_size
        a1, a2 = initial(weight.float().unflatten(1, (-1, columns)))
        scales = torch.stack([a1[..., 0], a2[..., 0]])
        in_half(scales)
        return cls(weight, bias, scales.to(weight))

    @property
    def scales(self) -> Tensor:
        """a1 and a2, [2, out, groups]."""
        return self.start * (1 + self.change)

    def forward(self, x: Tensor) -> Tensor:
        """From x [..., in] to y [..., out]."""
        a1, a2 = self.scales[..., None]
        b1, b2 = planes(self._grouped, a1, a2)
        return linear(x, (a1 * b1 + a2 * b2).flatten(1), self.bias)

    @torch.no_grad()
    def finished(self) -> QuantizedLinear:
        """The layer with its planes packed and its scales in float16.

        Raises:
            NumericsError: a scale is NaN or beyond float16.
        """
        step = in_half(self.scales)
        a1, a2 = step.float()[..., None]
        both = torch.stack(planes(self._grouped.float(), a1, a2)).flatten(2)  # [2, out, in]
        shape = (self.weight.shape[0], self.weight.shape[1])
        return QuantizedLinear.from_weight(PlanesWeight(both, None, step), shape, self.bias)

    @property
    def _grouped(self) -> Tensor:
        """W [out, groups, group_size]."""
        grouped: Tensor = self.weight.unflatten(1, (self.start.shape[2], -1))
        return grouped


@torch.no_grad()
def planes(W: Tensor, a1: Tensor, a2: Tensor) -> tuple[Tensor, Tensor]:
    """The planes that bring W^ nearest to W, whatever the signs and sizes of a1 and a2.

    Where a1 > -a2 > 0 these are the paper's b1 = 1[w >= (a1 + a2) / 2] and b2 = 1[w - a1 b1 < a2 / 2].

    Returns:
        b1 and b2, bool, shaped as W.
    """
    middle = a2.square() / 2
    lower, upper = a2 * W > middle, a2 * (W - a1) > middle  # b2, should b1 be 0 or 1
    b1 = (W - a1 - a2 * upper).abs() < (W - a2 * lower).abs()
    return b1, torch.where(b1, upper, lower)


@torch.no_grad()
def initial(W: Tensor) -> tuple[Tensor, Tensor]:
    """a1 and a2 [out, groups, 1] by the scale and direction with the least squared error in each group."""
    widest = W.abs().amax(-1, keepdim=True) * (2 / 3)  # 2 max|w| / (2^2 - 1)
    best, chosen = torch.full_like(widest, torch.inf), widest
    for i in range(1, SCALES + 1):
        for s in (widest * (i / SCALES), widest * (-i / SCALES)):
            b1, b2 = planes(W, 2 * s, -s)
            error = (W - s * (2 * b1.to(W) - b2.to(W))).square().sum(-1, keepdim=True)
            chosen, best = torch.where(error < best, s, chosen), torch.minimum(error, best)
    return 2 * chosen, -chosen
