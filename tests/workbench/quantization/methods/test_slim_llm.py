"""SliM-LLM: GPTQ where nothing is mixed, the same mean width where it is, bits where they matter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from workbench.quantization.grid import Grid
from workbench.quantization.hessian import upper_factor_of_inverse
from workbench.quantization.methods import gptq, rtn, slim_llm
from workbench.recipe.quantization import Gptq, SlimLlm

OUT, IN, GROUP, DAMPING = 20, 128, 16, 0.01
PLAIN = SlimLlm(mixed=False, salience_grid=False)


def uneven(tokens: int = 400) -> tuple[Tensor, Tensor]:
    """Inputs of which neighbouring columns are of one size: some groups matter, others hardly."""
    X = torch.randn(tokens, 12) @ torch.randn(12, IN) + 0.5 * torch.randn(tokens, IN)
    X = X * torch.logspace(-1, 1, IN // GROUP)[torch.randperm(IN // GROUP)].repeat_interleave(GROUP)
    return X, 2 / tokens * X.T @ X


@pytest.mark.parametrize("symmetric", [True, False])
def test_is_gptq_with_everything_off(symmetric: bool) -> None:
    W, H = torch.randn(OUT, IN, dtype=torch.float64), uneven()[1]
    grid = Grid(3, GROUP, symmetric)
    ours, _ = slim_llm.quantize(W, H, PLAIN, grid, DAMPING)
    theirs = gptq.quantize(W, H, Gptq(damping=DAMPING), grid)
    assert torch.equal(ours.parts[3].codes, theirs.codes)
    assert torch.equal(ours.dequantize(), theirs.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 7])
def test_mean_width_stays_and_goes_where_it_matters(bits: int) -> None:
    X, H = uneven()
    weight, said = slim_llm.quantize(torch.randn(OUT, IN), H, SlimLlm(), Grid(bits, GROUP, False), DAMPING)
    widths = weight.widths.tolist()
    assert sum(widths) == bits * len(widths)
    assert set(widths) == {bits - 1, bits, bits + 1} or set(widths) == {bits - 1, bits + 1}
    assert said["groups_above"] == widths.count(bits + 1)
    energy = X.square().sum(0).unflatten(0, (-1, GROUP)).sum(1)
    assert widths[int(energy.argmax())] == bits + 1 and widths[int(energy.argmin())] == bits - 1


def test_allocation_is_never_behind_one_width() -> None:
    """By the error of the outputs when groups are rounded, which is what it is chosen by."""
    for _ in range(5):
        H, W, grid = uneven()[1], torch.randn(OUT, IN), Grid(2, GROUP, False)
        U = upper_factor_of_inverse(H.double(), DAMPING).float()
        widths = slim_llm.allocate(W, H, U, grid)
        uniform = _rounded(W, [2] * len(widths), grid)
        chosen = _rounded(W, widths, grid)
        losses = [float(((W - Q) @ H * (W - Q)).sum()) for Q in (chosen, uniform)]
        assert losses[0] <= losses[1]


def _rounded(W: Tensor, widths: list[int], grid: Grid) -> Tensor:
    grids = [Grid(bits, GROUP, grid.symmetric or bits == 1) for bits in widths]
    groups = zip(W.split(GROUP, dim=1), grids, strict=True)
    return torch.cat([rtn.quantize(group, own).dequantize() for group, own in groups], dim=1)


@pytest.mark.parametrize("bits", [2, 3])
def test_both_parts_lower_the_output_error(bits: int) -> None:
    X, H = uneven()
    W, grid = torch.randn(OUT, IN), Grid(bits, GROUP, False)
    errors = [
        float(((W - slim_llm.quantize(W, H, cfg, grid, DAMPING)[0].dequantize()) @ X.T).norm())
        for cfg in (SlimLlm(), PLAIN)
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("bits", [1, 8])
def test_widths_without_neighbours_are_refused_where_they_are_mixed(bits: int) -> None:
    W, H, grid = torch.randn(OUT, IN), uneven()[1], Grid(bits, GROUP, False)
    with pytest.raises(ValueError, match="take 2 to 7"):
        slim_llm.quantize(W, H, SlimLlm(), grid, DAMPING)
    assert torch.isfinite(slim_llm.quantize(W, H, PLAIN, grid, DAMPING)[0].dequantize()).all()


def test_arguments_stay() -> None:
    W, H = torch.randn(OUT, IN), uneven()[1]
    before = W.clone(), H.clone()
    slim_llm.quantize(W, H, SlimLlm(), Grid(3, GROUP, True), DAMPING)
    assert torch.equal(W, before[0]) and torch.equal(H, before[1])
