"""Replay: mix a share of old text into the new (Ibrahim et al., arXiv 2403.08763, section 4).

Of every training token a share `ratio` is drawn from the old sources and the rest from the new ones;
the loss, the model and the optimizer stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from workbench.recipe.methods import Replay


def mixture(new: Mapping[str, float], replay: Replay) -> dict[str, float]:
    """Weights of all sources, old and new; they sum to 1. A source on both sides gets both shares."""
    weights = {name: (1 - replay.ratio) * weight for name, weight in new.items()}
    for name, weight in replay.mixture.items():
        weights[name] = weights.get(name, 0.0) + replay.ratio * weight
    return weights
