"""A routed output projection: two low-rank variants and the routers that weigh them per token.

MoGU (arXiv 2405.14488, section 3). On the output projection W_o of an attention, h [d] its input at a token:

    a = R_u(h), b = R_g(h)                    each in (0, 1), not normalised
    out = (a + b) W_o h + s (a D_u h + b D_g h) = a (W_o + s D_u) h + b (W_o + s D_g) h

D = B A of rank r is the update of the unwilling (u) or the glad (g) responder, s = alpha / r, and
R(h) = sigmoid(w_2 W_1 W_0 h + c). There is no non-linearity between the factors, so they are multiplied
before h comes in: the same function for less. Letters: B rows, L tokens in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

Responder = Literal["routed", "unwilling", "glad", "base"]
SHARES: dict[str, tuple[float, float]] = {"unwilling": (1.0, 0.0), "glad": (0.0, 1.0)}
ALWAYS = -1


@dataclass(frozen=True)
class Routing:
    """The sizes of a MoGU; the paper's by default.

    Attributes:
        rank: r of both updates.
        alpha: their scale is alpha / r.
        router_width: rows of W_0; None for a router that is one vector, as folded ones are.
        router_tokens: k, answer tokens that are routed in generation; -1 for all.
    """

    rank: int = 8
    alpha: float = 16.0
    router_width: int | None = 512
    router_tokens: int = 5


class Steering:
    """What all projections of a model share.

    Attributes:
        responder: who answers.
        keep: keep, in training, the shares that a balance loss looks at.
    """

    def __init__(self) -> None:
        self.responder: Responder = "routed"
        self.keep = False


class Router(nn.Module):
    """R(h): the share of a responder, token by token."""

    def __init__(self, size: int, width: int | None) -> None:
        super().__init__()
        shapes = [(1, size)] if width is None else [(1, size), (size, width), (width, size)]  # w_2, W_1, W_0
        self.factors = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in shapes)
        self.c = nn.Parameter(torch.zeros(1))

    def product(self) -> Tensor:
        """w_2 W_1 W_0: [1, d]."""
        product: Tensor = reduce(torch.matmul, self.factors)
        return product

    def forward(self, h: Tensor) -> Tensor:
        """From h [B, L, d] to the share [B, L, 1]."""
        return torch.sigmoid(nn.functional.linear(h, self.product(), self.c))


class Update(nn.Module):
    """D = B A."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, h: Tensor) -> Tensor:
        """From h [B, L, d] to D h [B, L, out]."""
        return h @ self.A.T @ self.B.T


class MoguProjection(nn.Module):
    """An output projection with two responders.

    Attributes:
        shares: of the last routed forward in training where the steering keeps them: a and b, [B, L].
    """

    def __init__(self, base: nn.Linear, routing: Routing, steering: Steering) -> None:
        super().__init__()
        self.base = base
        self.unwilling, self.glad = (
            Update(base.in_features, base.out_features, routing.rank) for _ in range(2)
        )
        self.unwilling_router, self.glad_router = (
            Router(base.in_features, routing.router_width) for _ in range(2)
        )
        self.scaling = routing.alpha / routing.rank
        self.steering = steering
        self.shares: tuple[Tensor, Tensor] | None = None

    def forward(self, h: Tensor) -> Tensor:
        """From h [B, L, d] to out [B, L, d]."""
        out: Tensor = self.base(h)
        responder = self.steering.responder
        if responder == "base":
            return out
        if responder == "routed":
            routed = self.unwilling_router(h), self.glad_router(h)
            if self.steering.keep and self.training:
                self.shares = routed[0].squeeze(-1), routed[1].squeeze(-1)
        a, b = routed if responder == "routed" else SHARES[responder]
        updates: Tensor = a * self.unwilling(h) + b * self.glad(h)
        return (a + b) * out + self.scaling * updates

    def merged(self, a: float, b: float) -> Tensor:
        """Weight [out, in] of the projection under constant shares."""
        updates = a * self.unwilling.B @ self.unwilling.A + b * self.glad.B @ self.glad.A
        return (a + b) * self.base.weight + self.scaling * updates
