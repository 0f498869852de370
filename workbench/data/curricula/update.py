"""What a controller decides after a measurement, and the floor that keeps every source alive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Figures = dict[str, float]


@dataclass(frozen=True)
class Update:
    """New weights, with what led to them.

    Attributes:
        weights: of all sources; None where it is too early for new ones.
        memory: what the next update needs of this one.
        said: figures by name and source, for the log.
    """

    weights: Figures | None
    memory: Figures
    said: dict[str, Figures] = field(default_factory=dict)


def shared(weights: Mapping[str, float], names: Iterable[str], total: float, floor: float) -> Figures:
    """The weights of some sources scaled to a sum, none of them below the floor.

    Those that would fall below it are held there, and the others share the rest in proportion.

    Args:
        weights: at least 0, relative to each other; not all 0.
        names: which of them to take.
        total: their sum afterwards, at least the floor of them all.
        floor: smallest weight.
    """
    chosen = list(names)
    held: set[str] = set()
    while True:
        free = [name for name in chosen if name not in held]
        rest, sum_free = total - floor * len(held), sum(weights[name] for name in free)
        scaled = {
            name: floor if name in held else rest * (weights[name] / sum_free if sum_free else 1 / len(free))
            for name in chosen
        }
        below = {name for name in free if scaled[name] < floor}
        if not below or below == set(free):
            return scaled
        held |= below
