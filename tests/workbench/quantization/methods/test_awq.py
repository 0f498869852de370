"""AWQ searches scales and clipping for the least output error, and folding alone changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from workbench import models
from workbench.errors import NumericsError
from workbench.quantization.attended import Batch
from workbench.quantization.calibration import Inputs, Statistics, capture, observe, propagate
from workbench.quantization.grid import Grid
from workbench.quantization.methods import awq, rtn
from workbench.recipe.quantization import Awq

GRID = Grid(3, 16, symmetric=False)


@pytest.fixture
def block_and_inputs(tiny_model_folder: Path) -> tuple[nn.Module, Inputs]:
    model = models.load(tiny_model_folder).eval()
    block = models.blocks(model)[0]
    with torch.no_grad():
        for norm in ("input_layernorm", "post_attention_layernorm"):
            block.get_parameter(f"{norm}.weight").mul_(torch.rand(1) + 10 * torch.rand(64) ** 8)
        return block, capture(model, [torch.randint(320, (8, 32))], torch.device("cpu"))


def of_all(block: nn.Module) -> dict[str, Grid]:
    return dict.fromkeys(models.linears(block), GRID)


def seen_of(block: nn.Module, inputs: Inputs) -> tuple[list[Batch], dict[str, Statistics]]:
    return inputs.batches(0), observe(block, 0, inputs)[1]


def round_all(block: nn.Module, grid: Grid) -> None:
    for linear in models.linears(block).values():
        linear.weight.data.copy_(rtn.quantize(linear.weight, grid).dequantize())


def test_the_first_candidate_is_no_scale_and_all_are_balanced() -> None:
    found = list(awq.scales(torch.rand(32) + 0.01, [torch.randn(8, 32)], Awq(), GRID))
    assert len(found) == 20 and torch.equal(found[0], torch.ones(32))
    for s in found:
        torch.testing.assert_close(s.max() * s.min(), torch.tensor(1.0))
    assert found[-1].argsort().equal(found[1].argsort())


def test_duo_scaling_favours_channels_of_small_weights() -> None:
    weight = torch.ones(8, 32)
    weight[:, 5] = 0.01
    (first, *_) = awq.scales(torch.ones(32), [weight], Awq(duo_scaling=True), GRID)
    assert int(first.argmax()) == 5 and float(first.max() / first.min()) > 50


def test_dead_channels_keep_scales_finite() -> None:
    s_x = torch.tensor([0.0] * 8 + [1.0] * 8)
    for s in awq.scales(s_x, [torch.randn(4, 16)], Awq(), GRID):
        assert bool(torch.isfinite(s).all()) and bool((s > 0).all())


def test_search_takes_the_first_of_the_best() -> None:
    candidates = [torch.tensor(float(i)) for i in range(5)]
    errors = dict(zip(range(5), [3.0, 1.0, torch.nan, 1.0, 2.0], strict=True))
    assert awq.search(iter(candidates), lambda s: errors[int(s)]) is candidates[1]
    with pytest.raises(NumericsError, match="NaN"):
        awq.search(iter(candidates), lambda s: torch.nan)


def output_error(weight: Tensor, clipped: Tensor, x: Tensor, grid: Grid) -> Tensor:
    """Squared error of the part of the output that each group makes, [out, groups], token by token."""
    width = grid.columns(weight.shape[1])
    difference = (rtn.quantize(clipped, grid).dequantize() - weight).unflatten(1, (-1, width))
    return torch.einsum("ogi,tgi->tog", difference, x.unflatten(1, (-1, width))).square().sum(0)


@pytest.mark.parametrize("group_size", [16, "channel"])
def test_clipping_is_the_best_of_its_candidates(group_size: int) -> None:
    """Against the errors of the outputs themselves, with every limit tried by hand."""
    grid = Grid(3, group_size, symmetric=False)
    weight, x = torch.randn(6, 32) ** 3, torch.randn(200, 32) @ torch.randn(32, 32)
    clipped = awq.clip(weight, x.T @ x, grid)
    groups = weight.unflatten(1, (-1, grid.columns(32)))
    limit = groups.abs().amax(-1, keepdim=True)
    tried = [groups.clamp(-limit * (1 - i / 20), limit * (1 - i / 20)).flatten(1) for i in range(10)]
    least = torch.stack([output_error(weight, candidate, x, grid) for candidate in tried]).amin(0)
    torch.testing.assert_close(output_error(weight, clipped, x, grid), least, rtol=1e-3, atol=1e-3)
    assert not torch.equal(clipped, weight)


def test_folding_alone_keeps_what_the_block_computes(block_and_inputs: tuple[nn.Module, Inputs]) -> None:
    block, inputs = block_and_inputs
    with torch.no_grad():
        before, norm = (
            torch.cat(propagate(block, 0, inputs)),
            block.get_parameter("input_layernorm.weight").clone(),
        )
        awq.fold_and_clip(block, *seen_of(block, inputs), Awq(clip=False), of_all(block))
        assert not torch.allclose(norm, block.get_parameter("input_layernorm.weight"))
        torch.testing.assert_close(torch.cat(propagate(block, 0, inputs)), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [False, True])
def test_a_block_loses_less_than_by_rounding(block_and_inputs: tuple[nn.Module, Inputs], clip: bool) -> None:
    block, inputs = block_and_inputs
    weights = {name: parameter.clone() for name, parameter in block.named_parameters()}
    errors = []
    with torch.no_grad():
        exact = torch.cat(propagate(block, 0, inputs))
        for prepare in (True, False):
            block.load_state_dict(weights)
            if prepare:
                awq.fold_and_clip(block, *seen_of(block, inputs), Awq(clip=clip), of_all(block))
            round_all(block, GRID)
            errors.append(float((torch.cat(propagate(block, 0, inputs)) - exact).norm()))
    assert errors[0] < 0.95 * errors[1]


def test_queries_and_keys_are_not_clipped(block_and_inputs: tuple[nn.Module, Inputs]) -> None:
    block, inputs = block_and_inputs
    with torch.no_grad():
        before = {name: linear.weight.clone() for name, linear in models.linears(block).items()}
        awq.fold_and_clip(block, *seen_of(block, inputs), Awq(ratios=1), of_all(block))  # the only scale is 1
    changed = {
        name for name, linear in models.linears(block).items() if not before[name].equal(linear.weight)
    }
    assert changed == {name for name in before if not name.endswith(("q_proj", "k_proj"))}
