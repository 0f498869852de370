"""Which kernel, and which tiles, serve a product y [M, N] = x [M, K] W^T on a device.

The tiles are a table, `regimes.json`, by device, width of the codes and M; how many programs share the
columns of a row follows from the shape and the number of multiprocessors. A device that the table does
not have takes the entry "any", which comes from the model of `predict.py` and from no measurement.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

TABLE = Path(__file__).with_name("regimes.json")
Kernel = Literal["gemv", "gemm", "dequantize"]
PERIOD = 128
BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Regime:
    """A kernel and its tiles.

    Attributes:
        kernel: gemv, for few rows of x; gemm, on tensor cores; dequantize, then a dense matmul.
        block_n: rows of W of a program.
        block_m: rows of x of a program (gemm).
        periods: periods of 128 columns that a program holds at a time (gemv).
        warps: warps of a program.
        stages: loads in flight.
        splits: programs that share the columns of a row of W.
    """

    kernel: Kernel
    block_n: int = 64
    block_m: int = 16
    periods: int = 1
    warps: int = 4
    stages: int = 3
    splits: int = 1


def bucket(rows: int) -> int:
    """The least tabled M that is not below `rows`."""
    return next(m for m in BUCKETS if rows <= m)


def choose(bits: int, shape: tuple[int, int], rows: int, device: torch.device) -> Regime:
    """The regime of a product.

    Args:
        bits: width of a code.
        shape: [out, in] of W.
        rows: M, rows of x.
        device: where it runs.
    """
    if rows > BUCKETS[-1]:  # a dense product is bound by arithmetic, and dequantizing is little beside it
        return Regime("dequantize")
    name, multiprocessors = _device(device)
    table = tiles()
    regime = table.get(name, table["any"])[bits, bucket(rows)]
    if regime.kernel == "dequantize":
        return regime
    return split(regime, shape, rows, multiprocessors)


def split(regime: Regime, shape: tuple[int, int], rows: int, multiprocessors: int) -> Regime:
    """The regime with as many splits as fill the device twice, each of at least four steps."""
    tiles_n = -(-shape[0] // regime.block_n)
    tiles_m = rows if regime.kernel == "gemv" else -(-rows // regime.block_m)
    steps = shape[1] // (PERIOD * regime.periods)
    wanted = 2 * multiprocessors // (tiles_n * tiles_m)
    splits = max(1, min(wanted, steps // 4))
    fields = {**vars(regime), "splits": splits}
    return Regime(**fields)


@cache
def tiles() -> dict[str, dict[tuple[int, int], Regime]]:
    """The table: device -> (bits, bucket of M) -> regime, without splits."""
    devices = json.loads(TABLE.read_text())
    return {
        device: {
            (int(bits), int(rows)): Regime(**fields)
            for bits, by_rows in entries.items()
            for rows, fields in by_rows.items()
        }
        for device, entries in devices.items()
    }


@cache
def _device(device: torch.device) -> tuple[str, int]:
    """Name and number of multiprocessors; a CPU, where kernels are interpreted, is given 8."""
    if device.type != "cuda":
        return "any", 8
    properties = torch.cuda.get_device_properties(device)
    return properties.name, properties.multi_processor_count
