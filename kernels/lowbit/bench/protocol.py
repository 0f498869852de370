"""The bench: for every shape and number of rows, all widths and all contestants in one interleaved run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from lowbit.bench import contestants
from lowbit.bench.contestants import GRADIENT, OURS, Product, Quantized
from lowbit.bench.floor import FORMULA, Limits, effective_bits, floor_seconds, measure_limits
from lowbit.bench.peers import PEERS, TOLERANCES
from lowbit.bench.shapes import ROWS, SHAPES
from lowbit.bench.timing import Times, measure

SCHEMA = "lowbit.bench/1"
DENSE = "bf16"
TOLERANCE = 0.01  # of the norm, in bfloat16; rounding the result takes about 0.002
CHECKED_ROWS = 64
COLD_BYTES = {"cuda": 2 * 50 * 2**20, "cpu": 2**26}  # copies of a weight exceed these: no cache holds them
# On a CPU without bfloat16 arithmetic torch takes 70 ms a row for the gradient of 1024 x 4096.
GRADIENT_ROWS = {"cuda": ROWS, "cpu": (1, 4, 16)}
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
        gradient_rows: those of them for which gradients are measured too.
        group_size: columns that share a scale.
        budget_s: seconds for the samples of a shape and number of rows.
    """

    layers: tuple[tuple[str, tuple[int, int]], ...]
    bits: tuple[int, ...]
    rows: tuple[int, ...]
    gradient_rows: tuple[int, ...]
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
    return Plan(layers, widths, ROWS, GRADIENT_ROWS[device.type], 128, 0.2 if gpu else 1.5)


@dataclass(frozen=True)
class Contestant:
    """One product on one weight.

    Attributes:
        who: its name, as in the results.
        bits: width of a code, or of a number of a dense weight.
        copies: the product with each copy of the weight.
        weight: the weight, or None if it is dense.
    """

    who: str
    bits: int
    copies: list[Product]
    weight: Quantized | None

    @property
    def name(self) -> str:
        """Name and bits, which no other has."""
        return f"{self.who} {self.bits}"

    @property
    def gradient(self) -> bool:
        """Whether the product is dx = dy W."""
        return self.who.endswith(GRADIENT)

    @property
    def baseline(self) -> str:
        """The dense contestant with the same product."""
        return DENSE + GRADIENT * self.gradient

    def agrees(self, x: Tensor, weight: Tensor) -> bool:
        """Whether the product of the first copy is that of the decoded weight [N, K], float32."""
        expected = x[:CHECKED_ROWS].float() @ (weight if self.gradient else weight.T)
        most = TOLERANCES.get(self.who, TOLERANCE) * expected.norm()
        return bool((self.copies[0](x)[:CHECKED_ROWS].float() - expected).norm() < most)


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
        field = _field(plan, shape, device, failed)
        for m in plan.rows:
            inputs = [torch.randn(m, columns, device=device, dtype=torch.bfloat16) for columns in shape]
            calls: dict[str, list[Callable[[], object]]] = {}
            for weight, group in groupby(field, lambda one: one.weight):
                decoded = None if weight is None else weight.dense()
                for one in group:
                    if one.gradient and m not in plan.gradient_rows:
                        continue
                    x = inputs[0 if one.gradient else 1]
                    if decoded is None or one.agrees(x, decoded):  # dense products are the measure
                        calls[one.name] = [_call(copy, x) for copy in one.copies]
                    else:
                        entry = {"layer": layer, "m": m, "contestant": one.who, "bits": one.bits}
                        failed.append(entry | {"reason": f"{one.bits} bits do not agree with the reference"})
            times: dict[str, Times] = {}
            for gradient in (False, True):  # gradients take so long that products after them begin cold
                apart = {
                    one.name: calls[one.name]
                    for one in field
                    if one.gradient == gradient and one.name in calls
                }
                times |= measure(apart, device, plan.budget_s / 2) if apart else {}
            where = {"layer": layer, "n": shape[0], "k": shape[1], "m": m}
            timed = [one for one in field if one.name in times]
            cells += [where | _cell(one, times, shape, m, plan, limits) for one in timed]
            advance()
    return _head(device) | {
        "limits": asdict(limits),
        "floor": FORMULA,
        "group_size": plan.group_size,
        "cells": cells,
        "failed": failed,
    }


def _cell(
    one: Contestant, times: dict[str, Times], shape: tuple[int, int], m: int, plan: Plan, limits: Limits
) -> dict[str, Any]:
    """What was found of a contestant."""
    found = times[one.name]
    b_eff = float(one.bits) if one.weight is None else effective_bits(one.bits, plan.group_size)
    return {
        "contestant": one.who,
        "bits": one.bits,
        "b_eff": b_eff,
        **asdict(found),
        "ratio_to_bf16": times[f"{one.baseline} 16"].median / found.median,
        "floor": floor_seconds(limits, m, shape, b_eff) * 1e6,
    }


def _field(
    plan: Plan, shape: tuple[int, int], device: torch.device, failed: list[dict[str, Any]]
) -> list[Contestant]:
    """All contestants on a shape, with copies of their weights."""
    n, k = shape
    copies = {bits: range(_copies(n * k * bits // 8, device)) for bits in (*plan.bits, 16, 32)}
    weight = torch.randn(n, k, device=device) / k**0.5
    field = []
    for who, bits, dtype in ((DENSE, 16, torch.bfloat16), ("fp32", 32, torch.float32)):
        if bits == 16 or device.type == "cpu":  # where bf16 may not be the fast dtype
            products = [contestants.dense(weight, dtype) for _ in copies[bits]]
            gradients = [contestants.dense_gradient(weight, dtype) for _ in copies[bits]]
            field += [
                Contestant(who, bits, products, None),
                Contestant(who + GRADIENT, bits, gradients, None),
            ]
    weights = [contestants.random_weight(shape, bits, plan.group_size, device) for bits in plan.bits]
    if 4 in plan.bits:
        weights.append(contestants.random_nf4(shape, plan.group_size, device))
    for quantized in weights:
        bits = quantized.bits
        for who, make in {**OURS, **PEERS}.items():
            try:
                made = [make(quantized) for _ in copies[bits]]
            except REFUSALS as error:
                if who in OURS:
                    raise
                entry = {"layer": f"{n} x {k}", "contestant": who, "bits": bits}
                failed.append(entry | {"reason": f"{type(error).__name__}: {error}".split("\n")[0]})
                continue
            products = [product for product in made if product is not None]
            if products:
                field.append(Contestant(who, bits, products, quantized))
    return field


def _copies(nbytes: int, device: torch.device) -> int:
    """Copies of a weight of so many bytes that no cache holds."""
    return max(2, min(-(-COLD_BYTES[device.type] // nbytes), MOST_COPIES[device.type]))


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
