"""Weights along points that the recipe gives in tokens: straight lines between them, or stages.

Llama-3-SynE (arXiv 2407.18743, section 3.1) is two stages; switching late to a richer blend is "Reuse,
don't retrain" (arXiv 2407.07263).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from workbench.recipe.curricula import Scheduled

Weights = dict[str, float]


def weights(section: Scheduled, first: Mapping[str, float], tokens: int) -> Weights:
    """Weights of a batch that comes after so many tokens.

    Args:
        section: the points; after the last one its mixture stays.
        first: weights at 0 tokens; names all sources.
        tokens: trained on so far.
    """
    places = [0, *(point.tokens for point in section.points)]
    mixtures = [first, *(point.mixture for point in section.points)]
    index = bisect_right(places, tokens) - 1
    here = {name: mixtures[index].get(name, 0.0) for name in first}
    if section.kind == "staged" or index == len(places) - 1:
        return here
    share = (tokens - places[index]) / (places[index + 1] - places[index])
    there = mixtures[index + 1]
    return {name: (1 - share) * weight + share * there.get(name, 0.0) for name, weight in here.items()}
