"""The bench: for every shape and number of rows, all widths and all contestants in one interleaved run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from lowbit.bench import contestants
from lowbit.bench.contestants import PEERS, TOLERANCES, Product, Quantized
from lowbit.bench.floor import FORMULA, effective_bits, floor_seconds, measure_limits
from lowbit.bench.shapes import ROWS, SHAPES
from lowbit.bench.timing import measure

SCHEMA = "lowbit.bench/1"
COMPARED = "ours"  # the products of this package
TOLERANCE = 0.01  # of the norm, in bfloat16; rounding the result takes about 0.002
CHECKED_ROWS = 64
COLD_BYTES = {"cuda": 2 * 50 * 2**20, "cpu": 2**26}  # copies of a weight exceed these: no cache holds them
MOST_COPIES = {"cuda": 1024, "cpu": 3}
# What a peer of another version may raise on a weight, a device or an interface that it does not know.
REFUSALS = (ImportError, RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        layers: name, [out, in].
        bits: widths.
        rows: rows of x.
        group_size: columns that share a scale.
        budget_s: seconds for the samples of a shape and number of rows.
    """

    layers: tuple[tuple[str, tuple[int, int]], ...]
    bits: tuple[int, ...]
    rows: tuple[int, ...]
    group_size: int
    budget_s: float

    @property
    def cells(self) -> int:
        """How many runs of contestants it takes."""
        return len(self.layers) * len(self.rows)


def plan_for(device: torch.device, models: Sequence[str] = (), bits: Sequence[int] = ()) -> Plan:
    """All LLaMA-3 shapes and widths on a GPU; two shapes and widths on a CPU, where a run takes minutes.

    Args:
        device: where it will run.
        models: keys of `SHAPES` whose layers to take; () for those of the device.
        bits: widths; () for those of the device.

    Raises:
        ValueError: a model without shapes, or bits outside of 1 to 8.
    """
    gpu = device.type == "cuda"
    if unknown := sorted(set(models) - set(SHAPES)):
        raise ValueError(f"no shapes of {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    if wrong := sorted(set(bits) - set(range(1, 9))):
        raise ValueError(f"bits {', '.join(map(str, wrong))} are not supported; there are 1 to 8")
    some = {"8b": {name: SHAPES["8b"][name] for name in ("q,o", "k,v")}}
    chosen = {model: SHAPES[model] for model in models} if models else (SHAPES if gpu else some)
    layers = tuple((f"{model} {name}", shape) for model, own in chosen.items() for name, shape in own.items())
    widths = tuple(bits) or (tuple(range(1, 9)) if gpu else (4, 8))
    return Plan(layers, widths, ROWS, 128, 0.2 if gpu else 2.0)


def run(plan: Plan, device: torch.device, advance: Callable[[], None]) -> dict[str, Any]:
    """Measure.

    Args:
        plan: what.
        device: where.
        advance: called after every one of `plan.cells`.

    Returns:
        What `report` draws, in plain numbers and words: the device, versions, limits, one cell for each
        contestant, shape, width and number of rows, and what was refused or red.
    """
    limits = measure_limits(device)
    cells: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for layer, shape in plan.layers:
        field, about = _field(plan, shape, device, failed)
        for m in plan.rows:
            x = torch.randn(m, shape[1], device=device, dtype=torch.bfloat16)
            expected = {weight: _expected(x, weight) for weight in about.values()}
            sound = {
                name: copies
                for name, copies in field.items()
                if _agrees(copies[0](x), name, expected[about[name]])
            }
            for name in sorted(field.keys() - sound.keys()):
                who, bits = name.rsplit(" ", 1)
                entry = {"layer": layer, "m": m, "contestant": who, "bits": int(bits)}
                failed.append(entry | {"reason": f"{bits} bits do not agree with the reference"})
            calls = {name: [_call(copy, x) for copy in copies] for name, copies in sound.items()}
            times = measure(calls, device, plan.budget_s)
            for name, found in times.items():
                who, bits = name.rsplit(" ", 1)
                b_eff = 16.0 if about[name] is None else effective_bits(int(bits), plan.group_size)
                cells.append(
                    {
                        "layer": layer,
                        "n": shape[0],
                        "k": shape[1],
                        "m": m,
                        "contestant": who,
                        "bits": int(bits),
                        "b_eff": b_eff,
                        **asdict(found),
                        "ratio_to_bf16": times["bf16 16"].median / found.median,
                        "floor": floor_seconds(limits, m, shape, b_eff) * 1e6,
                    }
                )
            advance()
    return _head(device) | {
        "limits": asdict(limits),
        "floor": FORMULA,
        "group_size": plan.group_size,
        "cells": cells,
        "failed": failed,
    }


def _field(
    plan: Plan, shape: tuple[int, int], device: torch.device, failed: list[dict[str, Any]]
) -> tuple[dict[str, list[Product]], dict[str, Quantized | None]]:
    """Copies of each contestant on a shape, and its quantized weight or None, by name and bits."""
    n, k = shape
    field: dict[str, list[Product]] = {}
    about: dict[str, Quantized | None] = {}
    copies = {bits: _copies(n * k * bits // 8, device) for bits in (*plan.bits, 16)}
    any_weight = torch.randn(n, k, device=device) / k**0.5
    for name, dtype in {"bf16 16": torch.bfloat16, "fp32 16": torch.float32}.items():
        if dtype == torch.bfloat16 or device.type == "cpu":  # where bf16 is not the fast dtype
            field[name] = [contestants.dense(any_weight, dtype) for _ in range(copies[16])]
            about[name] = None
    for bits in plan.bits:
        weight = contestants.random_weight(shape, bits, plan.group_size, device)
        for name, make in {COMPARED: contestants.ours, **PEERS}.items():
            try:
                made = [make(weight) for _ in range(copies[bits])]
            except REFUSALS as error:
                if name == COMPARED:
                    raise
                entry = {"layer": f"{n} x {k}", "contestant": name, "bits": bits}
                failed.append(entry | {"reason": f"{type(error).__name__}: {error}".split("\n")[0]})
                continue
            if made[0] is not None:
                field[f"{name} {bits}"] = [product for product in made if product is not None]
                about[f"{name} {bits}"] = weight
    return field, about


def _copies(nbytes: int, device: torch.device) -> int:
    """Copies of a weight of so many bytes that no cache holds."""
    return max(2, min(-(-COLD_BYTES[device.type] // nbytes), MOST_COPIES[device.type]))


def _expected(x: Tensor, weight: Quantized | None) -> Tensor | None:
    """The first rows of the product, float32; None for dense weights, which are the measure themselves."""
    return None if weight is None else x[:CHECKED_ROWS].float() @ weight.dense().T


def _agrees(y: Tensor, name: str, expected: Tensor | None) -> bool:
    """Whether a product is the expected one."""
    if expected is None:
        return True
    most = TOLERANCES.get(name.rsplit(" ", 1)[0], TOLERANCE) * expected.norm()
    return bool((y[:CHECKED_ROWS].float() - expected).norm() < most)


def _call(product: Product, x: Tensor) -> Callable[[], object]:
    return lambda: product(x)


def _head(device: torch.device) -> dict[str, Any]:
    """What was measured where, with which versions."""
    gpu = device.type == "cuda"
    packages = ("torch", "triton", "gemlite", "bitsandbytes", "torchao")
    return {
        "schema": SCHEMA,
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if gpu else _cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "protocol": "contestants in turns, weights rotated beyond the caches"
        + (", CUDA graph replay" if gpu else ", eager calls"),
    }


def _cpu_name() -> str:
    known = torch.cpu.get_capabilities()
    name, cores = known.get("cpu_name", platform.processor()), known.get("num_physical_cores", "?")
    return f"{name} {torch.backends.cpu.get_cpu_capability()} {cores} cores"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
