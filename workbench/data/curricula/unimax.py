"""UniMax: as even as it gets without reading a source more than N times (arXiv 2304.09151, algorithm 1).

From the smallest source to the largest, each takes an even share of the budget that is left, but at most N
passes over its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from workbench.errors import DataError


def weights(tokens: Mapping[str, int], epochs: float, budget: float) -> dict[str, float]:
    """Weights that sum to 1.

    Args:
        tokens: those of one pass over each source.
        epochs: N, most passes over a source.
        budget: tokens to train on.

    Raises:
        DataError: all sources together do not hold the budget in so many passes.
    """
    held = epochs * sum(tokens.values())
    if held < budget:
        raise DataError(
            f"unimax: {epochs:g} passes over the sources are {held:,.0f} tokens, but {budget:,.0f} are to be "
            "trained on; allow more epochs, add text, or train on fewer tokens"
        )
    left, given = float(budget), {}
    smallest_first = sorted(tokens, key=lambda name: tokens[name])
    for rank, name in enumerate(smallest_first):
        given[name] = min(left / (len(tokens) - rank), epochs * tokens[name])
        left -= given[name]
    return {name: given[name] / budget for name in tokens}
