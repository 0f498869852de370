"""A quadratic pull towards the weights of the start, applied where AdamW sees them.

The penalty strength/2 sum_i F_i (theta_i - theta_0i)^2 has a gradient that needs nothing but the weight
itself. So it is not part of the loss: it is added to the gradient in the optimizer, where ZeRO has
already cut the weights into partitions, and theta_0 and F are cut alike because they lie beside the
moments of AdamW. Clipping comes before it and knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ANCHOR, IMPORTANCE = "anchor", "importance"  # theta_0 and F among the state of AdamW


@dataclass(frozen=True, eq=False)
class Anchor:
    """The pull that a method asks for; theta_0 are the weights that training starts with.

    Attributes:
        strength: lambda, at least 0.
        importance: F by parameter name, shaped as the parameter; None where every weight counts 1.
    """

    strength: float
    importance: Mapping[str, Tensor] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What must lie beside the moments."""
        return (ANCHOR,) if self.importance is None else (ANCHOR, IMPORTANCE)


class AnchoredAdamW(torch.optim.AdamW):
    """AdamW whose gradient has that of the pull in it."""

    def __init__(self, params: Iterable[Any], strength: float, **options: Any) -> None:
        super().__init__(params, **options)
        self._strength = strength
        self._penalties: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Add strength F (theta - theta_0) to the gradients, then update; ZeRO calls this once a group."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if weight.grad is not None and ANCHOR in state:
                    way = weight - state[ANCHOR]
                    pull = way * state[IMPORTANCE] if IMPORTANCE in state else way
                    self._penalties.append(self._strength / 2 * (pull * way).sum())
                    weight.grad.add_(pull, alpha=self._strength)
        return super().step(closure)

    def take_penalty(self) -> float:
        """strength/2 sum F (theta - theta_0)^2 over the weights of this process, before the last update."""
        value = sum(float(part) for part in self._penalties)
        self._penalties.clear()
        return value
