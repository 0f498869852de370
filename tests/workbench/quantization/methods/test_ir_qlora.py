"""ICQ finds the shift that brute force finds, and IEC is part of the update in the end."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.formats.codebook import TABLES
from workbench.quantization.methods import ir_qlora, nf4
from workbench.recipe.quantization import IrQlora, Nf4

EXACT = Nf4(double_quantization=False)


def code_entropy(values: list[float]) -> float:
    """Entropy of the NF4 codes of one block, in bits, number by number."""
    middles = [(low + high) / 2 for low, high in pairwise(TABLES["nf4"])]
    largest = max(abs(value) for value in values)
    counts = Counter(sum(value / largest > middle for middle in middles) for value in values)
    return -sum(c / len(values) * math.log2(c / len(values)) for c in counts.values())


@pytest.mark.parametrize("seed", range(4))
def test_the_shift_is_that_of_brute_force(seed: int) -> None:
    block = torch.randn(64, generator=torch.Generator().manual_seed(seed)).mul(0.02).add(0.003)
    cfg = IrQlora(steps=10)
    found = float(ir_qlora.shift(block[None], cfg))
    values, tau0 = block.tolist(), float(block.median())
    reach = max(abs(value - tau0) for value in values)
    sigma = 1 / torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.9677083)).item()
    grid = [tau0 + i / 10 * 0.1 * sigma * reach for i in range(-10, 11)]
    best = max(code_entropy([value - tau for value in values]) for tau in [*grid, 0.0])
    assert code_entropy([value - found for value in values]) == pytest.approx(best, abs=1e-9)
    assert min(abs(found - tau) for tau in [*grid, 0.0]) < 1e-5 * reach
    nearer = [tau for tau in grid if abs(tau - tau0) < abs(found - tau0) - 1e-5 * reach]
    assert all(code_entropy([value - tau for value in values]) < best - 1e-9 for tau in nearer)


@pytest.mark.parametrize("shape", [(32, 64), (7, 43)])
@pytest.mark.parametrize("mean", [0.0, 0.05])
def test_no_block_has_less_entropy_than_under_nf4(shape: tuple[int, int], mean: float) -> None:
    W = torch.randn(shape).mul(0.02).add(mean)
    shifted, plain = ir_qlora.quantize(W, IrQlora(steps=10), EXACT), nf4.quantize(W, EXACT)
    gained = ir_qlora.entropy(shifted.codes, 64) - ir_qlora.entropy(plain.codes, 64)
    assert bool((gained >= 0).all()) and float(gained.mean()) > 0
    assert len(gained) == -(-W.numel() // 64)


def test_entropy_is_that_of_the_codes() -> None:
    codes = torch.tensor([[0, 1, 2, 3], [5, 5, 5, 5], [0, 0, 1, 1], [0, 9, 9, 9]], dtype=torch.uint8)
    expected = torch.tensor([2.0, 0.0, 1.0, 0.811278124459], dtype=torch.float64)
    torch.testing.assert_close(ir_qlora.entropy(codes, 4), expected, rtol=0, atol=1e-9)
    last = ir_qlora.entropy(codes[:, :3].contiguous(), 8)  # 8 and then 4 codes
    assert float(last[1]) == pytest.approx(code_entropy_of([1, 0, 9, 9]))


def code_entropy_of(codes: list[int]) -> float:
    return -sum(c / len(codes) * math.log2(c / len(codes)) for c in Counter(codes).values())


def test_shifted_weights_come_back() -> None:
    """Every weight within half a gap of the levels of its shifted block; with a mean that nf4 pays for."""
    W = torch.randn(16, 128).mul(0.01).add(0.04)
    found, plain = ir_qlora.quantize(W, IrQlora(), EXACT), nf4.quantize(W, EXACT)
    gap = max(b - a for a, b in pairwise(TABLES["nf4"])) / 2
    reach = found.absmax.decode().repeat_interleave(64).view(W.shape)
    assert bool(((W - found.dequantize()).abs() <= gap * reach + 1e-7).all())
    assert (W - found.dequantize()).norm() < 0.5 * (W - plain.dequantize()).norm()


def test_without_reach_the_shift_is_the_median_or_none() -> None:
    blocks = torch.randn(50, 64)
    tau = ir_qlora.shift(blocks, IrQlora(reach=0))
    assert bool(((tau == blocks.median(1).values) | (tau == 0)).all())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    W = torch.randn(4, 64)
    W[2, 3] = value
    with pytest.raises(NumericsError, match="NaN or infinite"):
        ir_qlora.quantize(W, IrQlora(steps=2), Nf4())


SIZES = [(64, 8, 32), (48, 10, 36), (7, 5, 3)]  # in, rank, out; the last two do not divide


@pytest.mark.parametrize(("columns", "rank", "rows"), SIZES)
def test_merged_connections_are_the_same_update(columns: int, rank: int, rows: int) -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    A, B, beta1, beta2, x = draw(rank, columns), draw(rows, rank), draw(1), draw(1), draw(3, 5, columns)
    merged_A, merged_B = ir_qlora.merged(A, B, beta1, beta2)
    apart = ir_qlora.update(x, A, B, beta1, beta2)
    torch.testing.assert_close(x @ (merged_B @ merged_A).T, apart, rtol=1e-12, atol=1e-12)
    zero = torch.zeros(1, dtype=torch.float64)
    assert torch.equal(ir_qlora.merged(A, B, zero, zero)[0], A)


def test_connections_average_neighbours_and_repeat_values() -> None:
    x = torch.arange(8.0)
    assert ir_qlora.connect(x, 4).tolist() == [0.5, 2.5, 4.5, 6.5]
    assert ir_qlora.connect(x[:2], 6).tolist() == [0, 0, 0, 1, 1, 1]
    assert ir_qlora.connect(x, 6).tolist() == [1.5, 1.5, 1.5, 5.5, 5.5, 5.5]  # by twos, their common divisor
    assert torch.equal(ir_qlora.connection(8, 6, x) @ x, ir_qlora.connect(x, 6))
