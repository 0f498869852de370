"""What a piece of work cost: seconds and peak memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

SAMPLE_EVERY_S = 0.02


@dataclass
class Cost:
    """Seconds of wall time, and the most memory held at a time: of the GPU, else of the process."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the body; the result is complete when the body is left."""
    cost = Cost()
    cuda = torch.cuda.is_available()
    done = threading.Event()
    process = psutil.Process()

    def sample() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            cost.peak_memory_bytes = max(cost.peak_memory_bytes, process.memory_info().rss)

    sampler = threading.Thread(target=sample, daemon=True)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        cost.peak_memory_bytes = process.memory_info().rss
        sampler.start()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - start
        done.set()
        if cuda:
            cost.peak_memory_bytes = torch.cuda.max_memory_allocated()
        else:
            sampler.join()
