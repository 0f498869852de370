"""SmoothQuant balances the two sides as its equation says, and changes nothing that a block computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench import models
from workbench.quantization.calibration import capture, observe, propagate, statistics
from workbench.quantization.methods import smoothquant
from workbench.recipe.quantization import SmoothQuant


def test_with_half_the_difficulty_both_sides_reach_as_far() -> None:
    max_abs, weights = torch.rand(16) * 9 + 0.1, [torch.randn(8, 16), torch.randn(4, 16)]
    s = smoothquant.smoothing(max_abs, weights, 0.5)
    reach = torch.cat([weight * s for weight in weights]).abs().amax(0)
    torch.testing.assert_close(max_abs / s, reach)


@pytest.mark.parametrize(("alpha", "side"), [(1.0, "activations"), (0.0, "weights")])
def test_all_difficulty_can_go_to_one_side(alpha: float, side: str) -> None:
    max_abs, weight = torch.rand(16) * 9 + 0.1, torch.randn(8, 16)
    s = smoothquant.smoothing(max_abs, [weight], alpha)
    flat = max_abs / s if side == "activations" else (weight * s).abs().amax(0)
    torch.testing.assert_close(flat, torch.ones(16))


def test_dead_inputs_and_dead_columns_keep_scales_finite() -> None:
    s = smoothquant.smoothing(torch.tensor([0.0, 1.0, 0.0]), [torch.tensor([[1.0, 0.0, 0.0]])], 0.85)
    assert bool((s > 0).all()) and bool(torch.isfinite(s).all())


def test_a_block_computes_the_same_from_calmer_inputs(tiny_model_folder: Path) -> None:
    model = models.load(tiny_model_folder).eval()
    block = models.blocks(model)[0]
    with torch.no_grad():
        # a channel that dwarfs the others, as in trained models
        block.get_parameter("input_layernorm.weight")[3] *= 100
        inputs = capture(model, [torch.randint(320, (4, 32))], torch.device("cpu"))
        query = block.get_submodule("self_attn.q_proj")
        assert isinstance(query, torch.nn.Linear)

        def ratio() -> float:
            (seen,) = statistics(block, 0, inputs, [query])
            return float(seen.max_abs.amax() / seen.max_abs.median())

        before, wild = propagate(block, 0, inputs), ratio()
        _, seen = observe(block, 0, inputs)
        smoothquant.smooth(block, seen, SmoothQuant(alpha=0.85))
        after = propagate(block, 0, inputs)
        assert ratio() < wild / 10
    torch.testing.assert_close(torch.cat(after), torch.cat(before), rtol=1e-4, atol=1e-4)
