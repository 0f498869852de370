"""Online data mixing: a bandit that likes high training loss (Albalak et al., arXiv 2312.02406, algorithm 1).

EXP3 with an exploration rate that falls. For K sources at update t, with L_i the mean training loss of
source i since the last update and pi its share among them:

    R_i   = alpha R_i + (1 - alpha) L_i / pi_i(t-1)      sources that were not drawn keep theirs
    e_t   = min(1 / K, sqrt(ln K / (K t)))
    pi_i(t) = (1 - K e_t) exp(e_(t-1) R_i) / sum_j exp(e_(t-1) R_j) + e_t
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from workbench.data.curricula.update import Figures, Update, shared
from workbench.recipe.curricula import Bandit


def update(
    section: Bandit, turn: int, weights: Mapping[str, float], measured: Figures, memory: Figures
) -> Update:
    """New weights after some batches.

    Args:
        section: settings.
        turn: t, 1 at the first update.
        weights: of all sources; those that `memory` does not name keep theirs.
        measured: L of the sources that were drawn, in nats a token.
        memory: R of the sources that the bandit moves, 0 in the beginning.
    """
    total = sum(weights[name] for name in memory)
    shares = {name: weights[name] / total for name in memory}
    alpha, K = section.smoothing, len(memory)
    rewards = {
        name: alpha * old + (1 - alpha) * measured[name] / shares[name]
        if measured.get(name) is not None and shares[name] > 0
        else old
        for name, old in memory.items()
    }
    before, now = _exploration(turn - 1, K), _exploration(turn, K)
    best = max(rewards.values())  # out of the exponential, which could overflow
    liked = {name: math.exp(before * (reward - best)) for name, reward in rewards.items()}
    norm = sum(liked.values())
    policy = {name: (1 - K * now) * value / norm + now for name, value in liked.items()}
    new = {**weights, **shared(policy, memory, total, section.floor)}
    return Update(new, rewards, {"rewards": rewards})


def _exploration(turn: int, K: int) -> float:
    return min(1 / K, math.sqrt(math.log(K) / (K * turn))) if turn else 1 / K
