"""SmoothQuant: move what makes activations hard to quantize into the weights, then quantize both.

Xiao, Lin, Seznec, Wu, Demouth, Han, "SmoothQuant: Accurate and Efficient Post-Training Quantization
for Large Language Models", arXiv 2211.10438, equation 4. The scales go out of the two norms of a block
and into the linears behind them, as in the published code; output and down projections are not
smoothed. Weights then have one symmetric grid a row, and inputs of all linears one a token, found as
they come. The grid of the weights is the workbench's, 2 max|w| / (2^b - 1), where the published code
divides max|w| by 2^(b-1) - 1.

Letters: X inputs, W [out, in] weights, alpha share of the difficulty that moves, s [in] scales.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workbench.quantization import folding
from workbench.quantization.calibration import Statistics
from workbench.recipe.quantization import SmoothQuant

SMALLEST = 1e-5  # of both maxima, as in the published code


def smoothing(max_abs: Tensor, weights: list[Tensor], alpha: float) -> Tensor:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), [in].

    Args:
        max_abs: max|X_j|, [in], over all calibration tokens.
        weights: W [out, in] of the linears that read X.
        alpha: 0: all difficulty stays with the activations; 1: all goes to the weights.

    Source: equation 4.
    """
    X = max_abs.clamp(min=SMALLEST)
    W = torch.cat(weights).float().abs().amax(0).clamp(min=SMALLEST)
    return (X.pow(alpha) / W.pow(1 - alpha)).clamp(min=SMALLEST)


def smooth(block: nn.Module, seen: Mapping[str, Statistics], cfg: SmoothQuant) -> None:
    """Fold the scales of a block from its norms into its linears, in place; its function stays.

    Args:
        block: a LLaMA block.
        seen: statistics of what its linears read, by the first that reads it; they follow the scales.
        cfg: alpha.

    Raises:
        ModelError: the block is not a LLaMA block.
    """
    for fold in folding.folds(block):
        if fold in folding.NORMS:
            own, linears = seen[fold.linears[0]], folding.linears_of(block, fold).values()
            s = smoothing(own.max_abs, [linear.weight for linear in linears], cfg.alpha)
            folding.apply(block, fold, s)
            own.fold(s)
