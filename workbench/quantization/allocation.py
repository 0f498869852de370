"""Mixed precision: a budget of bits, spent on the linears where it saves most.

What a width costs a linear is measured: d = KL(p || p~), the mean over tokens of how far the model's
predictions move when this linear alone is rounded (Cai et al., "ZeroQ", arXiv 2001.00281, section 3.2).
Costs are then added up as if linears did not interact, and the widths of the least sum are found exactly,
as an integer programme (Yao et al., "HAWQ-V3", arXiv 2011.10680):

    minimise  sum_lw d_lw x_lw    with  sum_w x_lw = 1  for each l,  sum_lw b_lw x_lw <= B,  x_lw in {0, 1}

Letters: l linear; w width in bits; d_lw divergence; b_lw bits on disk, scales included; B budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench import models, storage
from workbench.errors import NumericsError, RecipeError
from workbench.progress import progress
from workbench.quantization.calibration import batches, capture, exact_products, propagate
from workbench.quantization.grid import Grid, check_group_size
from workbench.quantization.linear import dotted_name, linear_shapes
from workbench.quantization.methods import Plan, rtn
from workbench.quantization.size import expected_bits
from workbench.recipe.quantize import Quantize

Sensitivities = dict[str, dict[int, float]]
Sizes = dict[str, dict[int, int]]

# Costs are scaled to this before they are solved for: HiGHS takes 1e-6 for nothing.
LARGEST_COST = 1e6


@dataclass(frozen=True)
class Allotted:
    """What a linear got.

    Attributes:
        bits: its width.
        divergences: what each width costs it alone, in nats a token.
    """

    bits: int
    divergences: dict[int, float]


def sizes(method: str, stage: Quantize, bits: float, shapes: Mapping[str, tuple[int, int]]) -> Sizes:
    """Bits on disk of every linear at every width.

    Args:
        method: one of the methods that allocate.
        stage: grid and widths.
        bits: the budget, real bits a weight.
        shapes: [out, in] of each linear by name.

    Raises:
        RecipeError: the budget is below what the smallest widths take; names the least possible one.
    """
    assert stage.allocation
    found = {
        name: {
            width: expected_bits(method, shape, Plan(stage, width, 0)) for width in stage.allocation.widths
        }
        for name, shape in shapes.items()
    }
    least = sum(min(own.values()) for own in found.values())
    weights = sum(rows * columns for rows, columns in shapes.values())
    if least > budget(bits, shapes):
        raise RecipeError(
            f"quantize.bits: {method} within {bits:g} real bits a weight is not possible; widths "
            f"{sorted(stage.allocation.widths)} in groups of {stage.group_size} take at least "
            f"{least / weights:.4f}, scales included: allow more bits, larger groups, or smaller widths"
        )
    return found


def budget(bits: float, shapes: Mapping[str, tuple[int, int]]) -> int:
    """B: how many bits all linears may take at so many real bits a weight."""
    return int(bits * sum(rows * columns for rows, columns in shapes.values()))


def allocate(sensitivity: Sensitivities, sizes: Sizes, budget: int) -> dict[str, Allotted]:
    """The widths with the least sum of divergences within a budget.

    Args:
        sensitivity: d_lw by linear and width.
        sizes: b_lw by linear and width.
        budget: B, in bits.

    Raises:
        ValueError: no choice of widths fits; names the least budget that does.
    """
    widths = sorted(next(iter(sensitivity.values())))
    d = np.array([[sensitivity[name][width] for width in widths] for name in sensitivity])
    b = np.array([[sizes[name][width] for width in widths] for name in sensitivity], dtype=np.int64)
    least = b.min(1, keepdims=True)
    spare = budget - int(least.sum())
    if spare < 0:
        raise ValueError(f"a budget of {budget} bits is less than the least possible, {least.sum()}")
    # Counted from the least and in common units, bits are small whole numbers, exact in the solver.
    unit = max(int(np.gcd.reduce(b - least, axis=None)), 1)
    one_each = sparse.kron(sparse.eye(len(d)), np.ones((1, len(widths))), format="csr")
    solved = milp(
        (d * (LARGEST_COST / max(d.max(), 1e-30))).ravel(),
        integrality=np.ones(d.size),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(((b - least) // unit).reshape(1, -1), ub=spare // unit),
        ],
        options={"mip_rel_gap": 0},
    )
    assert solved.x is not None, solved.message
    chosen = solved.x.reshape(d.shape).argmax(1)
    return {
        name: Allotted(widths[w], own) for (name, own), w in zip(sensitivity.items(), chosen, strict=True)
    }


def sensitivities(
    model: PreTrainedModel,
    stage: Quantize,
    sequences: list[Tensor],
    title: str,
    device: torch.device | None = None,
    unfinished: Path | None = None,
) -> Sensitivities:
    """How far predictions move, in nats a token, when one linear is rounded and all others are as they were.

    The whole model is on the device, unlike in quantization. A linear is judged from its block on, on the
    inputs that the full model gives that block; only what is rounded is computed again.

    Args:
        model: any decoder-only model; its weights are as before afterwards.
        stage: grid and widths; rounding is to the nearest, whatever the methods are.
        sequences: token ids, [tokens] or [sequences, tokens] each.
        title: what the progress display says.
        device: where the model runs; default: the accelerator, if there is one.
        unfinished: JSON file of what is measured, written linear by linear; a stopped measurement with the
            same arguments goes on behind it.

    Returns:
        KL(p || p~) by linear and width, linears in forward order.

    Raises:
        ModelError: the group size does not divide.
        NumericsError: a divergence that is not finite; names the linear.
    """
    assert stage.allocation
    check_group_size(linear_shapes(model), stage.group_size)
    grids = {w: Grid(w, stage.group_size, stage.symmetric, stage.mse_grid) for w in stage.allocation.widths}
    home = model.device
    device = device or torch.accelerator.current_accelerator() or torch.device("cpu")
    blocks = models.blocks(model.eval().to(device))
    prefix = dotted_name(model, blocks)
    found = read(unfinished) if unfinished and unfinished.is_file() else {}
    # A linear of block i costs a pass through the blocks from i on, and through the head.
    passes = {
        f"{prefix}.{i}.{name}": len(blocks) - i + 1
        for i, block in enumerate(blocks)
        for name in models.linears(block)
    }
    done = sum(passes[name] for name in found)
    with (
        torch.no_grad(),
        exact_products(),
        progress(title, sum(passes.values()), "block passes", done=done) as advance,
    ):
        inputs = capture(model, sequences, device)
        tokens = [batch.to(device) for batch in batches(sequences)]
        first = list(inputs.hidden)
        for index, block in enumerate(blocks):
            inputs.hidden = propagate(block, index, inputs)
        last, inputs.hidden = inputs.hidden, first
        for index, block in enumerate(blocks):
            for own, linear in models.linears(block).items():
                name = f"{prefix}.{index}.{own}"
                if name in found:
                    continue
                calls = [*zip(tokens, inputs.hidden, last, strict=True)]
                found[name] = _divergences(model, blocks, index, linear, grids, calls)
                if not np.isfinite([*found[name].values()]).all():
                    raise NumericsError(
                        f"{name}: rounded, it makes predictions NaN or infinite; check the model's weights"
                    )
                if unfinished:
                    storage.write_json(unfinished, found)
                advance(passes[name])
            inputs.hidden = propagate(block, index, inputs)
    model.to(home)  # type: ignore[arg-type]
    return found


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum of p (e^d - 1 - d), d = log q - log p, whose terms do not cancel where q is near p.

    Args:
        log_p: log-probabilities [..., n].
        log_q: others, of the same shape.

    Returns:
        [...], in nats.
    """
    p, d = log_p.exp(), log_q - log_p
    return (torch.where(d < 1, p * d.expm1(), log_q.exp() - p) - p * d).sum(-1)


def read(file: Path) -> Sensitivities:
    """What a measurement wrote.

    Raises:
        RunError: something else has changed the file.
    """
    found: dict[str, dict[str, float]] = storage.read_json(file)
    return {name: {int(width): value for width, value in own.items()} for name, own in found.items()}


def _divergences(
    model: PreTrainedModel,
    blocks: nn.ModuleList,
    index: int,
    linear: nn.Linear,
    grids: Mapping[int, Grid],
    calls: list[tuple[Tensor, Tensor, Tensor]],
) -> dict[int, float]:
    """KL(p || p~) in nats a token, by width of one linear of block `index`.

    Args:
        model: the full model.
        blocks: its blocks.
        index: of the block that the linear is in.
        linear: what is rounded.
        grids: by width.
        calls: of each batch: token ids [sequences, tokens], inputs of the block, and outputs of the last
            block, [sequences, tokens, hidden].
    """
    exact = linear.weight.data
    rounded = {width: rtn.quantize(exact, grid).dequantize().to(exact.dtype) for width, grid in grids.items()}
    total = dict.fromkeys(grids, 0.0)
    try:
        for tokens, hidden, last in calls:
            log_p = _log_probabilities(model, blocks, len(blocks), tokens, last)
            for width, weight in rounded.items():
                linear.weight.data = weight
                log_q = _log_probabilities(model, blocks, index, tokens, hidden)
                total[width] += float(divergence(log_p, log_q).sum())
    finally:
        linear.weight.data = exact
    num_tokens = sum(tokens.numel() for tokens, _, _ in calls)
    return {width: summed / num_tokens for width, summed in total.items()}


def _log_probabilities(
    model: PreTrainedModel, blocks: nn.ModuleList, start: int, tokens: Tensor, hidden: Tensor
) -> Tensor:
    """Log-probabilities [sequences, tokens, vocabulary], from the inputs of the block `start` on."""
    with _given(blocks, start, hidden):
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits.float().log_softmax(-1)


@contextmanager
def _given(blocks: nn.ModuleList, start: int, hidden: Tensor) -> Iterator[None]:
    """Skip the blocks before `start`, whose result is known; embeddings and masks stay the model's affair."""
    originals = list(blocks[:start])
    try:
        for index in range(start):
            blocks[index] = _Given(hidden)
        yield
    finally:
        for index, original in enumerate(originals):
            blocks[index] = original


class _Given(nn.Module):
    """Stands in for a block whose output is known."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        return self.hidden
