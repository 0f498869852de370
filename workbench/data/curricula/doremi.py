"""DoReMi: more of what a reference knows better (Xie et al., arXiv 2305.10429, algorithm 1).

With l_i the loss of source i under the model in training and l_i,ref under the reference:

    lambda_i = max(l_i - l_i,ref, 0)     the excess loss
    a_i' = a_i exp(eta lambda_i) / sum_j a_j exp(eta lambda_j)
    a_i  = (1 - c) a_i' + c / k          smoothed with the uniform weights of k sources

The paper takes the excess of every token of a training batch; here it is that of the mean over held-out
text, measured now and then. What DoReMi hands to a larger model is the mean of the weights over the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from workbench.data.curricula.update import Figures, Update, shared
from workbench.recipe.curricula import DoReMi


def update(
    section: DoReMi, turn: int, weights: Mapping[str, float], measured: Figures, memory: Figures
) -> Update:
    """New weights after a measurement.

    Args:
        section: settings.
        turn: not looked at.
        weights: a of all sources; those without a held-out text keep theirs.
        measured: l of each text, in nats a token.
        memory: l,ref of each text.
    """
    names, k = list(section.texts), len(section.texts)
    excess = {name: max(measured[name] - memory[name], 0.0) for name in names}
    most = max(excess.values())  # out of the exponential, which could overflow
    grown = {name: weights[name] * math.exp(section.step_size * (excess[name] - most)) for name in names}
    total = sum(grown.values())
    smoothed = {
        name: (1 - section.smoothing) * (value / total if total else 1 / k) + section.smoothing / k
        for name, value in grown.items()
    }
    held = sum(weights[name] for name in names)
    new = {**weights, **shared(smoothed, names, held, section.floor)}
    return Update(new, memory, {"excess": excess})
