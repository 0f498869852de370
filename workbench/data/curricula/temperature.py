"""Temperature sampling: p_i in proportion to n_i^(1 / T) (Arivazhagan et al., arXiv 1907.05019, section 3.1).

T = 1 keeps the natural shares of the sources; the larger T, the more alike they become.
"""

from __future__ import annotations

from collections.abc import Mapping


def weights(tokens: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Weights that sum to 1.

    Args:
        tokens: n_i, those of one pass over each source.
        temperature: T.
    """
    largest = max(tokens.values())  # out of the power, which could overflow
    powers = {name: (count / largest) ** (1 / temperature) for name, count in tokens.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}
