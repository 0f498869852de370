"""Mixes: equal outputs stay what they are, shares lie where the factor says, no gradient is lost or NaN."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.models.interpolators import CHOOSING, INTERPOLATORS, NOISE, spherical

HIDDEN = 8
SHAPE = (2, 5, HIDDEN)
EXACT = sorted(set(INTERPOLATORS) - {"prog"})


@pytest.mark.parametrize("factor", [-3.0, 0.0, 0.7])
@pytest.mark.parametrize("name", EXACT)
def test_equal_outputs_stay_bit_for_bit(name: str, factor: float) -> None:
    mix = INTERPOLATORS[name](HIDDEN, factor)
    for dtype in (torch.float32, torch.bfloat16):
        x, p = torch.randn(SHAPE).to(dtype), torch.randn(SHAPE).to(dtype)
        y, w, _ = mix.to(dtype)(x, p, p.clone(), taught=False)
        assert torch.equal(y, p) and y.dtype == dtype
        assert w.dtype == torch.float32 and bool(((w >= 0) & (w <= 1)).all())


def test_prog_is_a_small_step_from_the_identity() -> None:
    x, p = torch.randn(SHAPE), torch.randn(SHAPE)
    y, *_ = INTERPOLATORS["prog"](HIDDEN, 0.0)(x, p, p, taught=False)
    assert 0 < ((y - p).norm() / p.norm()).item() < 5 * NOISE


@pytest.mark.parametrize("name", sorted(set(INTERPOLATORS) - CHOOSING))
def test_a_null_factor_gives_the_copy_alone(name: str) -> None:
    x, p, e = torch.randn(3, *SHAPE)
    y, w, _ = INTERPOLATORS[name](HIDDEN, None)(x, p, e, taught=False)
    torch.testing.assert_close(y, e)
    assert w.tolist() == [1.0]


@pytest.mark.parametrize("name", ["lerp", "proj", "dlerp", "dlerpin"])
def test_lerp_family_agrees_with_its_formula(name: str) -> None:
    x, p, e = torch.randn(3, *SHAPE)
    mix = INTERPOLATORS[name](HIDDEN, 0.4)
    features = {"dlerp": torch.cat([p, e], -1), "dlerpin": x}.get(name)
    logit = torch.tensor(0.4) if features is None else features @ mix.linear[0] + 0.4
    expected = 1 / (1 + torch.exp(-logit))
    expected = expected if features is None else expected[..., None]
    y, w, _ = mix(x, p, e, taught=False)
    torch.testing.assert_close(w, expected.expand_as(w))
    torch.testing.assert_close(y, (1 - expected) * p + expected * e)


def test_slerp_keeps_the_length_of_unit_vectors_and_divides_the_angle() -> None:
    p, e = (torch.nn.functional.normalize(torch.randn(50, HIDDEN), dim=-1) for _ in range(2))
    y = spherical(p, e, torch.tensor([0.25]))
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(50))
    whole, part = (torch.arccos((p * end).sum(-1)) for end in (e, y))
    torch.testing.assert_close(part, 0.25 * whole, rtol=1e-3, atol=1e-4)


def test_slerp_is_lerp_for_single_tokens_only() -> None:
    p = torch.randn(1, 3, HIDDEN)
    e = torch.randn(1, 3, HIDDEN)
    e[0, 1], e[0, 2] = 2 * p[0, 1], -p[0, 2]  # no angle, and the opposite direction
    w = torch.tensor([0.25])
    y = spherical(p, e, w)
    torch.testing.assert_close(y[0, 1:], torch.lerp(p, e, w)[0, 1:])
    assert not torch.allclose(y[0, 0], torch.lerp(p, e, w)[0, 0], atol=1e-3)


def test_moe_chooses_and_leaves_its_gate_to_the_divergence() -> None:
    x, p, e = torch.randn(3, *SHAPE)
    mix = INTERPOLATORS["moe"](HIDDEN, 0.0)
    y, w, _ = mix(x, p, e.requires_grad_(), taught=False)
    gate = torch.softmax(x @ mix.linear.T + mix.bias, -1)[..., 1:]
    torch.testing.assert_close(w, gate)
    assert torch.equal(y, torch.where(gate > 0.5, e, p)) and bool((gate > 0.5).any() & (gate < 0.5).any())
    y.sum().backward()
    assert mix.linear.grad is None
    mix(x, p, e, taught=False)[1].sum().backward()
    assert mix.linear.grad is not None


@pytest.mark.parametrize("name", sorted(INTERPOLATORS))
def test_gradients_are_finite_where_copy_and_block_agree(name: str) -> None:
    x, p = torch.randn(2, *SHAPE)
    e = p.clone().requires_grad_()
    mix = INTERPOLATORS[name](HIDDEN, 0.0)
    y, w, teacher = mix(x, p.requires_grad_(), e, taught=True)
    (y.square().sum() + w.sum() + (teacher - e).square().sum()).backward()
    for tensor in (p, e, *mix.parameters()):
        assert tensor.grad is None or bool(torch.isfinite(tensor.grad).all())


def test_teacher_is_detached_and_projected_by_proj_alone() -> None:
    x, p, e = torch.randn(3, *SHAPE)
    p.requires_grad_()
    for name, kind in INTERPOLATORS.items():
        mix = kind(HIDDEN, 0.0)
        teacher = mix(x, p, e, taught=True)[2]
        if name == "proj":
            torch.testing.assert_close(teacher, p @ mix.linear.T)
            teacher.sum().backward()
            assert mix.linear.grad is not None
        else:
            assert torch.equal(teacher, p) and not teacher.requires_grad
    assert p.grad is None


@pytest.mark.parametrize(
    ("name", "count"),
    [("lerp", 1), ("slerp", 1), ("dlerp", 2 * 4096 + 1), ("dlerpin", 4097), ("moe", 2 * 4097)],
)
def test_parameters_at_the_width_of_llama_3_8b(name: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(each.numel() for each in INTERPOLATORS[name](4096, 0.0).parameters()) == count


@pytest.mark.parametrize("name", ["lerp", "dlerp", "moe"])
def test_constant_share_is_the_sigmoid_of_the_factor(name: str) -> None:
    assert INTERPOLATORS[name](HIDDEN, 0.7).constant_share().item() == pytest.approx(1 / (1 + math.exp(-0.7)))
