"""AWQ: scale up the input channels that carry large activations before rounding, then clip the groups.

Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han, "AWQ: Activation-aware Weight Quantization for
LLM Compression and Acceleration", arXiv 2306.00978, equations 4 and 5, and its published code (the
clipping). Scales are searched on the output of the whole attention and of the whole MLP, on a sample
of the calibration tokens; where the module is one linear, and in the search for the clipping, the error is
taken over all tokens, as a quadratic form in their Hessian.

Letters: W [out, in] weights; X inputs; H [in, in] Hessian 2 X X^T; s_x, s_w [in] mean magnitudes of inputs
and weights; r exponent, the paper's alpha; s [in] scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from workbench import models
from workbench.errors import NumericsError
from workbench.quantization import folding
from workbench.quantization.attended import Batch
from workbench.quantization.calibration import Statistics
from workbench.quantization.folding import Fold
from workbench.quantization.grid import Grid, decode, encode, fit
from workbench.quantization.methods import rtn
from workbench.recipe.quantization import Awq

SEARCH_TOKENS = 4096  # of the calibration set, on which the outputs of whole modules are compared
SMALLEST = 1e-4  # of a scale
SHRINK_STEPS = 10  # candidates for clipping: the largest |w| of a group times 1 - i / 20
UNCLIPPED = ("q_proj", "k_proj")  # their errors meet in a product, which a single output does not see

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


def scales(s_x: Tensor, weights: list[Tensor], cfg: Awq, grid: Grid) -> Iterator[Tensor]:
    """The candidates for s, [in] each; the first is 1 unless duo_scaling.

    Args:
        s_x: mean |X|, [in].
        weights: W [out, in] of the linears that read X.
        cfg: number of ratios, duo_scaling.
        grid: its groups are those in which s_w takes weights relative to the largest.

    Source: equation 5; duo_scaling as in AutoAWQ.
    """
    W = torch.cat(weights).float().abs().unflatten(1, (-1, grid.columns(len(s_x))))
    s_w = (W / W.amax(-1, keepdim=True).clamp(min=SMALLEST)).flatten(1).mean(0)
    for i in range(cfg.ratios):
        r = i / cfg.ratios
        s = s_x.pow(r) / (s_w.pow(1 - r) + SMALLEST) if cfg.duo_scaling else s_x.pow(r)
        s = s.clamp(min=SMALLEST)
        yield s / (s.max() * s.min()).sqrt()


def search(candidates: Iterator[Tensor], error: Callable[[Tensor], float]) -> Tensor:
    """The candidate with the smallest error, the first of equals.

    Raises:
        NumericsError: no error is finite.

    Source: equation 4.
    """
    best, least = None, torch.inf
    for s in candidates:
        found = error(s)
        if found < least:
            best, least = s, found
    if best is None:
        raise NumericsError(
            "outputs on its calibration inputs are NaN or infinite; load the model in float32, or check its "
            "weights"
        )
    return best


def rounded(weight: Tensor, s: Tensor, grid: Grid) -> Tensor:
    """Q(W s) / s [out, in]: what W becomes under these scales."""
    return (rtn.quantize(weight * s, grid).dequantize() / s).to(weight.dtype)


def clip(weight: Tensor, hessian: Tensor, grid: Grid) -> Tensor:
    """Clamp each group of each row to where its part of the output changes least by rounding.

    Args:
        weight: W [out, in].
        hessian: H [in, in]; only its blocks along the diagonal, one a group, are looked at.
        grid: which grids may be used.

    Returns:
        W [out, in], clamped.
    """
    width = grid.columns(weight.shape[1])
    W: Tensor = weight.float().unflatten(1, (-1, width))  # [out, groups, width]
    H = torch.stack([block[:, i * width : (i + 1) * width] for i, block in enumerate(hessian.split(width))])
    reach = W.abs().amax(-1, keepdim=True)
    best, least = W, torch.full_like(reach, torch.inf)
    for i in range(SHRINK_STEPS):
        limit = reach * (1 - i / (2 * SHRINK_STEPS))
        clipped = W.clamp(-limit, limit)
        s, z = (parameter[..., None] for parameter in fit(clipped, grid))
        E = decode(encode(clipped, s, z, grid), s, z) - W
        error = (torch.einsum("ogi,gij->ogj", E, H) * E).sum(-1, keepdim=True)
        best = torch.where(error < least, clipped, best)
        least = torch.minimum(error, least)
    return best.flatten(1).to(weight.dtype)


def fold_and_clip(
    block: nn.Module,
    batches: list[Batch],
    seen: Mapping[str, Statistics],
    cfg: Awq,
    grids: Mapping[str, Grid],
) -> None:
    """Give the linears of a block the weights that rounding suits best, in place.

    Folding keeps the function of the block; clipping does not.

    Args:
        block: a LLaMA block.
        batches: its calibration inputs, out of unquantized blocks.
        seen: statistics of what its linears read, by the first that reads it; they follow the scales.
        cfg: options.
        grids: which grids the weights will be rounded to, by linear.

    Raises:
        ModelError: the block is not a LLaMA block.
        NumericsError: outputs that are not finite.
    """
    folds = folding.folds(block)
    calls = _calls(block, batches, [fold.module for fold in folds if fold in folding.NORMS])
    found: list[tuple[Fold, Tensor]] = []
    for fold in folds:
        own = seen[fold.linears[0]]
        weights = {name: linear.weight for name, linear in folding.linears_of(block, fold).items()}
        error = _error(block, fold, weights, own, calls.get(fold.module), grids)
        candidates = scales(own.mean_abs, [*weights.values()], cfg, grids[fold.linears[0]])
        found.append((fold, search(candidates, error)))
    for fold, s in found:
        folding.apply(block, fold, s)
        seen[fold.linears[0]].fold(s)
    if cfg.clip:
        _clip_all(block, seen, grids)


def _error(
    block: nn.Module,
    fold: Fold,
    weights: dict[str, Tensor],
    seen: Statistics,
    calls: Calls | None,
    grids: Mapping[str, Grid],
) -> Callable[[Tensor], float]:
    """What scales cost: squared error of the output of the fold's module when its weights are rounded."""
    if calls is None:
        ((name, W),) = weights.items()

        def of_linear(s: Tensor) -> float:
            E = rounded(W, s, grids[name]).float() - W.float()
            return float((E @ seen.hessian * E).sum())

        return of_linear

    module = block.get_submodule(fold.module)
    exact = [_output(module(*args, **kwargs)) for args, kwargs in calls]

    def of_module(s: Tensor) -> float:
        own = {
            name.removeprefix(f"{fold.module}.") + ".weight": rounded(W, s, grids[name])
            for name, W in weights.items()
        }
        outputs = (_output(functional_call(module, own, args, kwargs)) for args, kwargs in calls)
        return sum(float((y - y0).float().square().sum()) for y, y0 in zip(outputs, exact, strict=True))

    return of_module


def _clip_all(block: nn.Module, seen: Mapping[str, Statistics], grids: Mapping[str, Grid]) -> None:
    linears = models.linears(block)
    for names in models.subsets(block):
        for name in names:
            if not name.endswith(UNCLIPPED):
                weight = linears[name].weight
                weight.data.copy_(clip(weight, seen[names[0]].hessian, grids[name]))


def _calls(block: nn.Module, batches: list[Batch], names: list[str]) -> dict[str, Calls]:
    """What modules of the block are called with, on batches evenly taken from the calibration set."""
    recorded: dict[str, Calls] = {name: [] for name in names}

    def recorder(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            recorded[name].append((args, kwargs))

        return hook

    handles = [
        block.get_submodule(name).register_forward_pre_hook(recorder(name), with_kwargs=True)
        for name in names
    ]
    tokens = sum(hidden.shape[0] * hidden.shape[1] for hidden, _ in batches)
    stride = max(1, tokens // SEARCH_TOKENS)
    try:
        for hidden, arguments in batches[::stride]:
            block(hidden, **arguments)
    finally:
        for handle in handles:
            handle.remove()
    return recorded


def _output(result: Any) -> Tensor:
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output
