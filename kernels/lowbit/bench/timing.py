"""Times of calls that rotate over copies of their weights, so that none is found in a cache.

All contestants of a cell take turns, so that what else the machine does meets them alike. A call follows
one of the same kind on another copy, as the layers of a model follow each other: on a GPU one sample is the
replay of a CUDA graph with a call for every copy, divided by their number; on a CPU a short call is timed
after one that is not, which wakes the threads and brings the code, but not the weight, into the caches.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
SHORT = 0.02  # seconds below which it matters what ran before


@dataclass(frozen=True)
class Times:
    """Microseconds of a call: the median of all samples, a tenth below and a tenth above."""

    median: float
    p10: float
    p90: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Of samples in seconds."""
        micro = torch.tensor(seconds, dtype=torch.float64) * 1e6
        low, middle, high = micro.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
        return cls(middle, low, high, len(seconds))


def measure(
    contestants: Mapping[str, Sequence[Call]], device: torch.device, budget_s: float
) -> dict[str, Times]:
    """Time contestants in turns.

    Args:
        contestants: by name, the same call on each copy of the weights.
        device: where they run.
        budget_s: about how long to measure, all together, each for its part of it, so that slow ones do not
            take samples from fast ones; 3 samples are the least, 200 the most.
    """
    sample = _graphs(contestants) if device.type == "cuda" else _calls(contestants)
    share = budget_s / len(contestants)
    rounds = {name: min(max(int(share / sample(name)), 3), 200) for name in contestants}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names, draw = list(contestants), random.Random(0)
    for number in range(max(rounds.values())):
        draw.shuffle(names)  # who runs before leaves threads and caches in some state
        for name in names:
            if number < rounds[name]:
                seconds[name].append(sample(name))
    return {name: Times.of(found) for name, found in seconds.items()}


def _calls(contestants: Mapping[str, Sequence[Call]]) -> Callable[[str], float]:
    """A timed call of a contestant, on the next of its copies."""
    turn = dict.fromkeys(contestants, 0)

    def timed(name: str) -> float:
        call = contestants[name][turn[name] % len(contestants[name])]
        turn[name] += 1
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    short = {name: timed(name) < SHORT for name in contestants}

    def sample(name: str) -> float:
        if short[name]:
            timed(name)
        return timed(name)

    return sample


def _graphs(contestants: Mapping[str, Sequence[Call]]) -> Callable[[str], float]:
    """The time of a call of a contestant, from the replay of a graph of one for every copy."""
    graphs = {name: _captured(calls) for name, calls in contestants.items()}
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def sample(name: str) -> float:
        first.record()
        graphs[name].replay()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3 / len(contestants[name])

    return sample


def _captured(calls: Sequence[Call]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles and allocates before the capture
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph
