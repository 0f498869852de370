"""How long a product should take on a GPU, from its bytes and its instructions: a model, not a measurement.

`python -m lowbit.predict` prints the model and its figures for the layers of LLaMA-3 8B.

    b_eff = bits + 16 / g                        one 16-bit scale a group of g weights
    bytes = N K b_eff / 8 + 2 M (K + N)
    t     = t0 + max(bytes / (0.9 bandwidth), N K T i / (0.7 issue), 2 M' N K / (0.6 tensor)) / fill

i is the instructions that a weight costs a lane: the unpacking of a pair of codes takes a shift and a mask
for each plane, two joining operations for each further one, and three more to make values (one at 1 bit,
six at 8 bits), all halved; the loop around them adds 0.8, and without tensor cores the splitting of
pairs, the products and the sums 3. T is the tiles along M, M' is M filled up to whole tiles,
fill the share of the last wave of programs that is not idle, and t0 the start and end of a kernel, twice
that with splits. With splits the partial sums are written and read once more; a dequantized weight is
written, and then read by a dense product at 0.9 of bandwidth or tensor.

`python -m lowbit.predict --write` makes the entry "any" of `regimes.json`: of the candidates, the one that
takes the least time in sum over the layers of LLaMA-3 8B on an H100.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lowbit import regimes
from lowbit.affine_linear.layout import PLANES
from lowbit.regimes import Regime

MEMORY, ISSUE, FUSED = 0.9, 0.7, 0.6  # shares of the limits that a kernel reaches
START = 2.5e-6  # seconds that a kernel takes beside its work, in a graph


@dataclass(frozen=True)
class Device:
    """What a GPU can do.

    Attributes:
        bandwidth: bytes a second, of a copy.
        tensor: 16-bit floating-point operations a second.
        issue: instructions a second, counted by lane.
        multiprocessors: how many.
    """

    bandwidth: float
    tensor: float
    issue: float
    multiprocessors: int


DEVICES = {
    "H100": Device(3.0e12, 8.0e14, 29.7e12, 132),
    "H200": Device(4.3e12, 8.0e14, 29.7e12, 132),
    "A100": Device(1.7e12, 2.6e14, 19.5e12, 108),
}


def instructions(bits: int, *, tensor_cores: bool) -> float:
    """Instructions a lane spends on one weight; without tensor cores, also to split, multiply and add."""
    planes = len(PLANES[bits])
    values = {1: 1, 8: 6}.get(bits, 3)
    pair = 2 * planes + 2 * (planes - 1) + values
    return pair / 2 + (0.8 if tensor_cores else 3.0)


def floor(bits: int, shape: tuple[int, int], rows: int, group_size: int, device: Device) -> float:
    """Seconds that no kernel can beat: the larger of bytes / bandwidth and operations / tensor."""
    n, k = shape
    stored = n * k * (bits + 16 / group_size) / 8 + 2 * rows * (n + k)
    return max(stored / device.bandwidth, 2 * rows * n * k / device.tensor)


def seconds(
    regime: Regime, bits: int, shape: tuple[int, int], rows: int, group_size: int, device: Device
) -> float:
    """Predicted seconds of a product y [M, N] = x [M, K] W^T in a regime.

    Args:
        regime: kernel, tiles and splits.
        bits: width of a code.
        shape: [N, K] of W.
        rows: M.
        group_size: weights that share a scale.
        device: of DEVICES.
    """
    n, k = shape
    bandwidth = MEMORY * device.bandwidth
    if regime.kernel == "dequantize":
        made = n * k * (2 + bits / 8) / bandwidth
        read = 2 * (n * k + rows * (n + k)) / bandwidth
        return 2 * START + made + max(read, 2 * rows * n * k / (MEMORY * device.tensor))
    tensor_cores = regime.kernel == "gemm"
    block_m = regime.block_m if tensor_cores else 1
    tiles_m = -(-rows // block_m)
    stored = n * k * (bits + 16 / group_size) / 8 + 2 * rows * (n + k)
    issued = n * k * tiles_m * instructions(bits, tensor_cores=tensor_cores) / (ISSUE * device.issue)
    multiplied = 2 * tiles_m * block_m * n * k / (FUSED * device.tensor) if tensor_cores else 0.0
    programs = -(-n // regime.block_n) * tiles_m * regime.splits
    fill = programs / (device.multiprocessors * -(-programs // device.multiprocessors))
    partial = 8 * regime.splits * rows * n / bandwidth if regime.splits > 1 else 0.0
    work = max(stored / bandwidth, issued, multiplied)
    return START * (1 + (regime.splits > 1)) + work / fill + partial


LAYERS = {"q, o": (4096, 4096), "k, v": (1024, 4096), "gate, up": (14336, 4096), "down": (4096, 14336)}


def best(bits: int, rows: int, device: Device) -> Regime:
    """Of the candidates, the regime, without splits, that takes the least time in sum over LAYERS."""
    wide = 128 if bits < 5 else 64  # rows of W whose codes fit into registers beside a tile of 64 rows of x
    candidates = [
        Regime("gemv", block_n=16, periods=4 // PLANES[bits][0][0]),
        # with 3 loads of 4-bit codes in flight the compiler spills registers on sm_100
        Regime("gemm", block_n=64, block_m=16, stages=4 if bits == 4 else 3),
        Regime("gemm", block_n=64, block_m=32),
        Regime("gemm", block_n=wide, block_m=64, warps=8),
        Regime("dequantize"),
    ]

    def total(regime: Regime) -> float:
        return sum(predicted(regime, bits, shape, rows, device) for shape in LAYERS.values())

    return min(candidates, key=total)


def predicted(regime: Regime, bits: int, shape: tuple[int, int], rows: int, device: Device) -> float:
    """Seconds of a regime of the table, split as it would be, with groups of 128."""
    if regime.kernel != "dequantize":
        regime = regimes.split(regime, shape, rows, device.multiprocessors)
    return seconds(regime, bits, shape, rows, 128, device)


def write_table(path: Path) -> None:
    """Put the best regimes of the model into the entry "any" of the table."""
    table = json.loads(path.read_text()) if path.exists() else {}
    table["any"] = {
        bits: {rows: vars(best(bits, rows, DEVICES["H100"])) for rows in regimes.BUCKETS} for bits in PLANES
    }
    written = path.with_suffix(".part")
    written.write_text(json.dumps(table, indent=1) + "\n")
    os.replace(written, path)


def main() -> int:
    """Print the model, and its microseconds for the layers of LLaMA-3 8B with groups of 128."""
    parser = argparse.ArgumentParser(description="Predicted times of products by packed weights.")
    parser.add_argument("--write", action="store_true", help='make the entry "any" of regimes.json')
    if parser.parse_args().write:
        write_table(regimes.TABLE)
        return 0
    print(__doc__)
    for name, device in DEVICES.items():
        print(f"{name}, predicted microseconds (share of the floor)")
        for layer, shape in LAYERS.items():
            for rows in (1, 16, 64, 512):
                print(f"  {layer:9} M={rows:<4}" + "  ".join(_cells(shape, rows, device)))
    return 0


def _cells(shape: tuple[int, int], rows: int, device: Device) -> Iterator[str]:
    for bits in (8, 4, 3, 2, 1):
        regime = regimes.tiles()["any"][bits, regimes.bucket(rows)]
        time = predicted(regime, bits, shape, rows, device)
        share = floor(bits, shape, rows, 128, device) / time
        yield f"{bits} bits {1e6 * time:6.1f} {regime.kernel[:4]} ({share:3.0%})"


if __name__ == "__main__":
    sys.exit(main())
