"""A routed projection is the weighted sum of two variants of it, whoever gives the weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workbench.models.routing import MoguProjection, Router, Routing, Steering

H = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))


def projection(width: int | None = 6, bias: bool = False) -> MoguProjection:
    torch.manual_seed(0)
    routing = Routing(rank=3, alpha=6.0, router_width=width)
    made = MoguProjection(nn.Linear(12, 8, bias=bias), routing, Steering())
    for name, parameter in made.named_parameters():
        if not name.startswith("base."):
            nn.init.normal_(parameter, std=0.4)
    return made.eval()


def by_hand(router: Router) -> Tensor:
    """R(h), one factor after the other."""
    w_2, W_1, W_0 = router.factors
    return torch.sigmoid(H @ W_0.T @ W_1.T @ w_2.T + router.c)


@pytest.mark.parametrize("bias", [False, True])
def test_out_is_the_weighted_sum_of_the_two_variants(bias: bool) -> None:
    made = projection(bias=bias)
    a, b = by_hand(made.unwilling_router), by_hand(made.glad_router)
    assert all(bool(((share > 0) & (share < 1)).all()) for share in (a, b))
    c = made.base.bias if bias else torch.zeros(8)
    u, g = (made.base.weight + 2 * update.B @ update.A for update in (made.unwilling, made.glad))
    torch.testing.assert_close(made(H), a * (H @ u.T + c) + b * (H @ g.T + c), rtol=1e-5, atol=1e-5)


def test_a_router_of_one_vector_is_the_product_of_the_factors() -> None:
    made = projection()
    folded = Router(12, None)
    with torch.no_grad():
        folded.factors[0].copy_(made.glad_router.product())
        folded.c.copy_(made.glad_router.c)
    torch.testing.assert_close(folded(H), by_hand(made.glad_router))


@pytest.mark.parametrize(("responder", "a", "b"), [("unwilling", 1.0, 0.0), ("glad", 0.0, 1.0)])
def test_constant_shares_are_a_linear(responder: str, a: float, b: float) -> None:
    made = projection()
    made.steering.responder = responder  # type: ignore[assignment]
    update = getattr(made, responder)
    expected = made.base.weight + 2 * update.B @ update.A
    torch.testing.assert_close(made.merged(a, b), expected)
    torch.testing.assert_close(made(H), H @ expected.T, rtol=1e-5, atol=1e-5)


def test_the_base_is_left_alone() -> None:
    made = projection()
    made.steering.responder = "base"
    assert torch.equal(made(H), made.base(H))


def test_shares_are_kept_where_a_loss_looks_at_them_and_nowhere_else() -> None:
    made = projection()
    for training, keep, responder in [(False, True, "routed"), (True, False, "routed"), (True, True, "glad")]:
        made.train(training)
        made.steering.keep, made.steering.responder = keep, responder  # type: ignore[assignment]
        made(H)
        assert made.shares is None
    made.steering.responder = "routed"
    made(H)
    assert made.shares is not None
    for kept, router in zip(made.shares, (made.unwilling_router, made.glad_router), strict=True):
        torch.testing.assert_close(kept, by_hand(router).squeeze(-1))
        assert kept.requires_grad
