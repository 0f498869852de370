"""BiLLM: whole salient columns in four levels, all others in two sets of two, chosen by search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.quantization.hessian import SingularHessian
from workbench.quantization.methods import billm
from workbench.quantization.methods.billm import Partition
from workbench.quantization.methods.binarization import binarize
from workbench.recipe.quantization import Billm

OUT, IN, BLOCK = 20, 96, 32


def correlated(tokens: int = 400) -> tuple[Tensor, Tensor]:
    X = torch.randn(tokens, 12) @ torch.randn(12, IN) + 0.3 * torch.randn(tokens, IN)
    X = X * torch.logspace(-1, 1, IN)[torch.randperm(IN)]
    return X, 2 / tokens * X.T @ X


@pytest.mark.parametrize("search_on", ["saliency", "weight"])
def test_levels_of_a_row_and_block(search_on: Any) -> None:
    _, H = correlated()
    weight, said = billm.quantize(torch.randn(OUT, IN), H, Billm(search_on=search_on), BLOCK)
    assert weight.additive is not None
    decoded = weight.dequantize()
    for start in range(0, IN, BLOCK):
        salient = weight.additive[start : start + BLOCK]
        assert 1 <= int(salient.sum()) < BLOCK
        for row in decoded[:, start : start + BLOCK]:
            assert len(row[salient].unique()) <= 4 and len(row[~salient].unique()) <= 4
    assert said["salient_share"] == pytest.approx(float(weight.additive.float().mean()))


def test_what_is_stored_is_what_was_computed() -> None:
    W = torch.randn(OUT, BLOCK)
    columns = torch.zeros(1, BLOCK, dtype=torch.bool)
    columns[0, [2, 9]] = True
    stored, Q = billm.binarize_block(W, Partition(columns, (W.abs() > 1) & ~columns))
    torch.testing.assert_close(stored.dequantize(), Q, rtol=0, atol=1e-6)


def test_residual_binarization_halves_what_one_order_leaves() -> None:
    """A second order never hurts, and on normal weights leaves about a third of the squared error."""
    W, everyone = torch.randn(64, 256), torch.ones(1, 256, dtype=torch.bool)
    once = (W - binarize(W, everyone).values).square().sum(1)
    twice = (W - billm.residual(W, everyone)[2]).square().sum(1)
    assert (twice <= once).all()
    assert float(twice.sum()) < 0.45 * float(once.sum())


def test_partition_is_the_best_of_its_candidates() -> None:
    """Against a slow search: no other break-point leaves a smaller error, with the same salient columns."""
    W = torch.distributions.StudentT(3.0).sample((OUT, BLOCK))
    s = W**2
    parts = billm.partition(W, s, 10)
    got = (W - billm.binarize_block(W, parts)[1]).square().sum()
    magnitudes = W[:, ~parts.salient[0]].abs().flatten().sort().values
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        p = magnitudes[round(share * (len(magnitudes) - 1))]
        other = Partition(parts.salient, (W.abs() > p) & ~parts.salient)
        assert got <= (W - billm.binarize_block(W, other)[1]).square().sum() * (1 + 1e-4)
    kept = parts.salient[0].nonzero().flatten().tolist()
    assert set(kept) == set(s.sum(0).topk(len(kept)).indices.tolist())  # the most salient ones


def test_most_salient_columns_are_a_bound() -> None:
    _, H = correlated()
    weight, _ = billm.quantize(torch.randn(OUT, IN), H, Billm(salient_columns=2, search_on="weight"), BLOCK)
    assert weight.additive is not None
    assert int(weight.additive.unflatten(0, (-1, BLOCK)).sum(1).max()) <= 2


def test_searching_on_weights_errs_less_on_weights() -> None:
    _, H = correlated()
    W = torch.randn(OUT, BLOCK)
    on_weight, on_saliency = (
        (W - billm.quantize(W, H[:BLOCK, :BLOCK], Billm(search_on=on), "channel")[0].dequantize()).norm()
        for on in ("weight", "saliency")
    )
    assert on_weight <= on_saliency


@pytest.mark.parametrize("search_on", ["saliency", "weight"])
def test_beats_binarization_and_itself_without_feedback(search_on: Any) -> None:
    X, H = correlated()
    W = torch.randn(OUT, IN)
    blocks = W.unflatten(1, (-1, BLOCK)).flatten(0, 1)
    plain = binarize(blocks, torch.ones(1, BLOCK, dtype=torch.bool)).values.view(OUT, IN)
    cfg = Billm(search_on=search_on)
    ours, blind = (billm.quantize(W, hessian, cfg, BLOCK)[0].dequantize() for hessian in (H, torch.eye(IN)))
    errors = [float(((W - quantized) @ X.T).norm()) for quantized in (ours, blind, plain)]
    assert errors[0] < errors[1] < errors[2]


def test_singular_hessian_is_an_error_and_arguments_stay() -> None:
    W, H = torch.randn(OUT, IN), correlated()[1]
    before = W.clone(), H.clone()
    billm.quantize(W, H, Billm(), BLOCK)
    assert torch.equal(W, before[0]) and torch.equal(H, before[1])
    H = torch.eye(IN)
    H[0, 1] = H[1, 0] = 5
    with pytest.raises(SingularHessian):
        billm.quantize(W, H, Billm(), BLOCK)


def test_large_saliencies_are_no_obstacle() -> None:
    """The search must not depend on the scale of inputs, which squares may take beyond float16."""
    W, H = torch.randn(OUT, IN), correlated()[1]
    one, other = (billm.quantize(W, factor * H, Billm(), BLOCK)[0] for factor in (2.0**-8, 2.0**24))
    assert torch.equal(one.planes, other.planes)
