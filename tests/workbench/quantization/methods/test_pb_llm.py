"""PB-LLM: as many salient weights as the bits say, eight bits for them and two levels for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.quantization.grid import Grid
from workbench.quantization.hessian import SingularHessian
from workbench.quantization.methods import pb_llm, rtn
from workbench.recipe.quantization import PbLlm

OUT, IN, BLOCK = 20, 96, 32


def correlated(tokens: int = 400) -> tuple[Tensor, Tensor]:
    X = torch.randn(tokens, 12) @ torch.randn(12, IN) + 0.3 * torch.randn(tokens, IN)
    X = X * torch.logspace(-1, 1, IN)[torch.randperm(IN)]
    return X, 2 / tokens * X.T @ X


@pytest.mark.parametrize(("bits", "salient_bits", "share"), [(1.7, 8, 0.1), (2, 8, 1 / 7), (2.2, 4, 0.4)])
def test_bits_say_how_many_weights_are_salient(bits: float, salient_bits: int, share: float) -> None:
    _, H = correlated()
    weight, said = pb_llm.quantize(torch.randn(OUT, IN), H, PbLlm(salient_bits=salient_bits), bits, BLOCK)
    assert weight.salient is not None
    of_blocks = weight.salient.mask.unflatten(1, (-1, BLOCK)).float().mean((0, 2))
    torch.testing.assert_close(of_blocks, torch.full((IN // BLOCK,), share), atol=1 / (OUT * BLOCK), rtol=0)
    assert said["salient_share"] == pytest.approx(share, abs=1 / (OUT * BLOCK))


@pytest.mark.parametrize("statistics", ["optimal", "published"])
def test_without_correlations_weights_are_rounded_where_they_are(statistics: Any) -> None:
    W = torch.randn(OUT, IN)
    weight, _ = pb_llm.quantize(W, torch.eye(IN), PbLlm(statistics=statistics), 2, BLOCK)
    assert weight.salient is not None
    decoded, mask = weight.dequantize(), weight.salient.mask
    eight = rtn.quantize(W, Grid(8, "channel", symmetric=False)).dequantize()
    assert torch.equal(decoded[mask], eight[mask])
    assert W[mask].abs().min() >= 0.5 * W[~mask].abs().max()  # the large ones, with equal inputs
    for row in range(OUT):
        for start in range(0, IN, BLOCK):
            block = slice(start, start + BLOCK)
            rest, levels = W[row, block][~mask[row, block]], decoded[row, block][~mask[row, block]]
            assert len(levels.unique()) == 2
            nearest = levels.unique()[(rest[:, None] - levels.unique()).abs().argmin(1)]
            assert torch.equal(levels, nearest)
            if statistics == "optimal":
                alpha = (rest - rest.mean()).abs().mean()  # a* = ||w - m||_1 / count
                assert float(levels.max() - levels.min()) == pytest.approx(float(2 * alpha), rel=2e-3)


def test_optimal_statistics_err_less_on_the_weights() -> None:
    W, H = torch.randn(OUT, IN), torch.eye(IN)
    optimal, published = (
        (W - pb_llm.quantize(W, H, PbLlm(statistics=statistics), 2, BLOCK)[0].dequantize()).norm()
        for statistics in ("optimal", "published")
    )
    assert optimal < published


def test_saliency_looks_at_the_inputs_or_not() -> None:
    W, H = torch.ones(OUT, IN), torch.diag(torch.linspace(1, 100, IN))
    W[:, 0] = 2.0
    by_hessian, by_magnitude = (
        pb_llm.quantize(W, H, PbLlm(saliency=saliency), 1 + 7 / BLOCK, BLOCK)[0].salient
        for saliency in ("hessian", "magnitude")
    )
    assert by_hessian is not None and by_magnitude is not None
    assert by_hessian.mask[:, BLOCK - 1].all() and by_magnitude.mask[:, 0].all()


def test_feedback_and_more_bits_lower_the_output_error() -> None:
    X, H = correlated()
    W = torch.randn(OUT, IN)
    errors = [
        float(((W - pb_llm.quantize(W, hessian, PbLlm(), bits, BLOCK)[0].dequantize()) @ X.T).norm())
        for hessian, bits in ((torch.eye(IN), 1.7), (H, 1.7), (H, 2), (H, 4))
    ]
    assert errors == sorted(errors, reverse=True) and errors[1] < 0.7 * errors[0]


def test_whole_rows_are_a_block_per_channel() -> None:
    _, H = correlated()
    weight, _ = pb_llm.quantize(torch.randn(OUT, IN), H, PbLlm(), 1.7, "channel")
    assert weight.step.shape == (1, OUT, 1)


def test_singular_hessian_is_an_error_and_arguments_stay() -> None:
    W, H = torch.randn(OUT, IN), correlated()[1]
    before = W.clone(), H.clone()
    pb_llm.quantize(W, H, PbLlm(), 1.7, BLOCK)
    assert torch.equal(W, before[0]) and torch.equal(H, before[1])
    H = torch.eye(IN)
    H[0, 1] = H[1, 0] = 5
    with pytest.raises(SingularHessian):
        pb_llm.quantize(W, H, PbLlm(), 1.7, BLOCK)
