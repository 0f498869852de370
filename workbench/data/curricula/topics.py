"""Topics by their change of perplexity (Llama-3-SynE, arXiv 2407.18743, section 3.1.1).

With p_i the loss of topic i, a the step size and w_i the importance of the topic:

    dp_i = p_i(t) - p_i(t-1)             above 0: forgotten since the last measurement
    d_i  = dp_i / max_j |dp_j|           the paper leaves the normaliser open; this one gives [-1, 1]
    f_i  = 1 + a d_i w_i
    r_i(t) = r_i(t-1) f_i / sum_j r_j(t-1) f_j

The sum runs over the topics of a group, as those of one language, whose weights keep their sum. Sources
that are no topics keep their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from workbench.data.curricula.update import Figures, Update, shared
from workbench.recipe.curricula import Topics


def update(
    section: Topics, turn: int, weights: Mapping[str, float], measured: Figures, memory: Figures
) -> Update:
    """New weights after a measurement.

    Args:
        section: settings.
        turn: not looked at.
        weights: r(t-1) of all sources.
        measured: loss of each topic's held-out text, in nats a token.
        memory: the measurement before this one; empty where this is the first.
    """
    if not memory:
        return Update(None, measured)
    if section.measure == "perplexity":
        now, before = (
            {topic: math.exp(loss) for topic, loss in losses.items()} for losses in (measured, memory)
        )
    else:
        now, before = measured, memory
    change = {topic: now[topic] - before[topic] for topic in section.texts}
    largest = max(map(abs, change.values()))
    normalised = {topic: dp / largest if largest else 0.0 for topic, dp in change.items()}
    factors = {
        topic: 1 + section.step_size * d * section.importance.get(topic, 1.0)
        for topic, d in normalised.items()
    }
    moved = {topic: weights[topic] * factor for topic, factor in factors.items()}
    new = dict(weights)
    for group in section.groups or [list(section.texts)]:
        new |= shared(moved, group, sum(weights[topic] for topic in group), section.floor)
    return Update(new, measured, {"differences": change, "factors": factors})
