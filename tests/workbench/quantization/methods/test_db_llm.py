"""Dual binarization takes the nearest level, starts from the best scale, and trains its scales alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workbench.errors import NumericsError
from workbench.quantization.formats import planes as format_planes
from workbench.quantization.formats.planes import PlanesWeight
from workbench.quantization.methods import db_llm
from workbench.quantization.methods.db_llm import DualBinaryLinear


def layer(out_features: int = 6, in_features: int = 64, bias: bool = False) -> nn.Linear:
    return nn.Linear(in_features, out_features, bias=bias)


def value(W: Tensor, a1: Tensor, a2: Tensor) -> Tensor:
    b1, b2 = db_llm.planes(W, a1, a2)
    return a1 * b1 + a2 * b2


def test_planes_are_those_of_the_paper_where_its_scales_are_in_order() -> None:
    W, a1, a2 = torch.randn(3, 2, 1000), torch.full((3, 2, 1), 1.3), torch.full((3, 2, 1), -0.5)
    b1 = (a1 + a2) / 2 <= W
    b2 = a2 / 2 > W - a1 * b1
    assert all(torch.equal(*pair) for pair in zip(db_llm.planes(W, a1, a2), (b1, b2), strict=True))


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("ratio", [-0.4, 0.0, 0.1, 0.5, 0.9, 1.6])
def test_every_weight_takes_the_nearest_of_four_levels(direction: int, ratio: float) -> None:
    W = torch.randn(3, 2, 1000)
    a1 = direction * torch.full((3, 2, 1), 1.3)
    a2 = -ratio * a1
    levels = torch.stack([a2, torch.zeros_like(a2), a1 + a2, a1]).expand(4, 3, 2, 1000)
    nearest = (W - levels).abs().amin(0)
    torch.testing.assert_close((W - value(W, a1, a2)).abs(), nearest)


def test_weights_on_the_levels_are_kept() -> None:
    scale = torch.rand(5, 3, 1) + 0.1
    codes = torch.randint(-1, 3, (5, 3, 32))
    codes[..., :2] = torch.tensor([-1, 2])
    for W in (scale * codes, -scale * codes):
        torch.testing.assert_close(value(W, *db_llm.initial(W)), W)


def test_the_start_is_no_worse_than_the_symmetric_scale_either_way() -> None:
    W = torch.randn(20, 3, 32)
    s = W.abs().amax(-1, keepdim=True) * 2 / 3
    error = (W - value(W, *db_llm.initial(W))).square().sum(-1)
    for sign in (1, -1):
        assert bool((error <= (W - value(W, 2 * sign * s, -sign * s)).square().sum(-1)).all())
    assert error.sum() < 0.7 * (W - value(W, 2 * s, -s)).square().sum()


def test_mirrored_weights_start_mirrored() -> None:
    W = torch.randn(20, 3, 32)
    for ours, theirs in zip(db_llm.initial(-W), db_llm.initial(W), strict=True):
        assert torch.equal(ours, -theirs)


def test_gradients_are_those_of_fixed_planes_and_reach_the_scales_alone() -> None:
    dual = DualBinaryLinear.of(layer(4, 64, bias=True), 32).double()
    x = torch.randn(5, 64, dtype=torch.float64)
    (dual(x) ** 2).sum().backward()
    assert {name for name, p in dual.named_parameters() if p.grad is not None} == {"change"}
    scales = dual.start.clone().requires_grad_()
    fixed = torch.stack(db_llm.planes(dual.weight.view(4, 2, 32), *scales[..., None])).double()
    W = torch.einsum("pog,pogi->ogi", scales, fixed).flatten(1)
    ((x @ W.T + dual.bias) ** 2).sum().backward()
    assert scales.grad is not None
    torch.testing.assert_close(dual.change.grad, scales.grad * dual.start)


def test_planes_follow_the_scales() -> None:
    dual = DualBinaryLinear.of(layer(), 32)
    x = torch.eye(64)
    with torch.no_grad():
        dual.change[0], dual.change[1] = 0.4, -0.2
        a1, a2 = dual.start[..., None] * torch.tensor([1.4, 0.8]).view(2, 1, 1, 1)
        torch.testing.assert_close(dual(x).T, value(dual.weight.view(6, 2, 32), a1, a2).flatten(1))


def test_training_brings_the_outputs_nearer() -> None:
    linear = layer(16, 64, bias=True)
    x = torch.randn(256, 64) @ torch.randn(64, 64)
    dual = DualBinaryLinear.of(linear, 32)
    optimizer = torch.optim.Adam([p for p in dual.parameters() if p.requires_grad], lr=1e-2)
    with torch.no_grad():
        wanted = linear(x)
    losses = []
    for _ in range(60):
        loss = (dual(x) - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("group_size", [32, "channel"])
def test_the_finished_layer_computes_the_same_in_so_many_bits(group_size: int | str) -> None:
    linear = layer(6, 96, bias=True)
    dual = DualBinaryLinear.of(linear, group_size)
    with torch.no_grad():
        dual.start.copy_(dual.start.half().float())
        # Scales that are half or twice those of the start are still float16 numbers.
        dual.change.copy_(torch.tensor([-0.5, 0.0, 1.0])[torch.randint(3, dual.change.shape)])
    finished = dual.finished()
    x = torch.randn(7, 96)
    torch.testing.assert_close(finished(x), dual(x))
    groups = 3 if group_size == 32 else 1
    assert isinstance(finished.quantized, PlanesWeight)
    assert finished.stored_bits == finished.quantized.stored_bits == 6 * (2 * 96 + 32 * groups)
    assert finished.stored_bits == format_planes.stored_bits(6, 96, groups, planes=2, numbers=2)


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), 1e6])
def test_damaged_weights_are_refused(damage: float) -> None:
    linear = layer()
    with torch.no_grad():
        linear.weight[2, 5] = damage
    with pytest.raises(NumericsError, match="a weight is NaN, infinite or beyond float16"):
        DualBinaryLinear.of(linear, 32)


def test_a_group_of_zeros_stays_zero() -> None:
    linear = layer()
    with torch.no_grad():
        linear.weight[2, 32:] = 0
    assert not DualBinaryLinear.of(linear, 32).finished().dequantize()[2, 32:].any()
