"""The least time that a product can take on a device: that of its bytes, or that of its arithmetic.

b_eff = b + 16 / g                              bits of a weight, one 16-bit scale a group
bytes = N K b_eff / 8 + 2 M (K + N)
floor = max(bytes / bandwidth, 2 M N K / rate)
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

FORMULA = "floor = max((N K b_eff / 8 + 2 M (K + N)) / bandwidth, 2 M N K / rate), b_eff = b + 16 / g"


@dataclass(frozen=True)
class Limits:
    """What a device does at best, measured on it.

    Attributes:
        bandwidth: bytes a second, read and written by a copy.
        rate: floating-point operations a second of a large matrix product.
        rate_dtype: in which dtype: bfloat16 on a GPU, float32 on a CPU.
    """

    bandwidth: float
    rate: float
    rate_dtype: str


def effective_bits(bits: int, group_size: int) -> float:
    """Bits that a weight takes with its share of a 16-bit scale."""
    return bits + 16 / group_size


def floor_seconds(limits: Limits, m: int, shape: tuple[int, int], b_eff: float) -> float:
    """The floor of y [M, N] = x [M, K] W^T, shape being [N, K]."""
    n, k = shape
    traffic = n * k * b_eff / 8 + 2 * m * (k + n)
    return max(traffic / limits.bandwidth, 2 * m * n * k / limits.rate)


def measure_limits(device: torch.device) -> Limits:
    """Measure a copy and a matrix product, the best of several."""
    gpu = device.type == "cuda"
    side, dtype = (8192, torch.bfloat16) if gpu else (1536, torch.float32)
    source = torch.ones((2**30 if gpu else 2**27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a = torch.randn(side, side, device=device, dtype=dtype)
    bandwidth = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    return Limits(bandwidth, 2 * side**3 / _best(lambda: a @ a, device), str(dtype).removeprefix("torch."))


def _best(call: object, device: torch.device, repeats: int = 8) -> float:
    """Least seconds of a call."""
    assert callable(call)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
