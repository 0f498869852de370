"""Compile the kernels for GPUs that are not there, and write down what the compiler made of them.

`python -m lowbit.aot` compiles every kernel in every configuration of `regimes.json` for sm_80, sm_90 and
sm_100, and writes registers, spilled bytes and shared memory to `results/aot.json`. A spill, or more
shared memory than the device has, is an error: such a tile is slow or does not start.

It needs triton and its ptxas, no GPU and no driver; TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lowbit import regimes
from lowbit.affine_linear import kernel, kernel_backward, kernel_dequantize, kernel_gemm, kernel_gemv
from lowbit.affine_linear.kernel_tiles import CODEBOOK, PACKED, SYMMETRIC
from lowbit.affine_linear.layout import PLANES
from lowbit.regimes import Regime

RESULTS = Path(__file__).with_name("results") / "aot.json"
GRIDS = {0: "symmetric", 1: "packed", 2: "fractions", 3: "codebook"}
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a program can have
POINTERS = {
    "x": "*bf16",
    "dy": "*bf16",
    "words": "*i32",
    "scale": "*fp16",
    "zero_point": "*i32",
    "table": "*bf16",
    "weight": "*bf16",
    "dx": "*bf16",
}
ALIGNED = ("M", "N", "K", "GROUPS", "FIRST_ROW", "ROWS")


@dataclass(frozen=True)
class Case:
    """One kernel in one configuration.

    Attributes:
        kernel: its name.
        bits: width of a code.
        grid: of SYMMETRIC, PACKED and CODEBOOK.
        part: columns of one group that are taken at a time.
        dtype: of x, by triton's name.
        options: tiles, by the kernel's names; num_warps.
    """

    kernel: str
    bits: int
    grid: int
    part: int
    dtype: str
    options: tuple[tuple[str, int], ...]


def cases() -> Iterator[Case]:
    """Every kernel of every configuration of the table."""
    seen: set[Case] = set()
    for entries in regimes.tiles().values():
        for (bits, _), regime in entries.items():
            for case in _of_regime(bits, regime):
                if case not in seen:
                    seen.add(case)
                    yield case


def _of_regime(bits: int, regime: Regime) -> Iterator[Case]:
    """The kernels of a regime, with the grids of this width; fp16, whose code is that of bf16, once."""
    forms = [(grid, part, "bf16") for grid in (SYMMETRIC, PACKED) for part in (32, 128)]
    forms += [(PACKED, 128, "fp16"), *([(CODEBOOK, 32, "bf16")] if bits == 4 else [])]
    for grid, part, dtype in forms:
        for kernel_name, options in _tiles(regime).items():
            yield Case(kernel_name, bits, int(grid.value), part, dtype, tuple(options.items()))


def _tiles(regime: Regime) -> dict[str, dict[str, int]]:
    """Kernels of a regime, and the compile-time arguments that it gives them."""
    if regime.kernel == "dequantize":
        return {"dequantize": kernel.DEQUANTIZE, "backward": kernel.BACKWARD}
    of_kernel = {"gemv": {"PERIODS": regime.periods}, "gemm": {"BLOCK_M": regime.block_m}}[regime.kernel]
    shared = {"BLOCK_N": regime.block_n, "STAGES": regime.stages, "num_warps": regime.warps}
    return {regime.kernel: of_kernel | shared}


def compile_case(case: Case, capability: int) -> dict[str, Any]:
    """Registers, spilled bytes, shared memory and instructions of a kernel on one kind of device."""
    function, constants = _source(case)
    signature, attributes = {}, {}
    for i, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = _type_of(name, case)
        if signature[name].startswith("*") or name in ALIGNED:
            attributes[(i,)] = [["tt.divisibility", 16]]
    options = {"num_warps": dict(case.options)["num_warps"]}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {"shared": compiled.metadata.shared, **_assembled(compiled.asm["cubin"])}


def _source(case: Case) -> tuple[Any, dict[str, Any]]:
    """The function of a case, and its compile-time arguments."""
    kernels = {
        "gemv": kernel_gemv.gemv,
        "gemm": kernel_gemm.gemm,
        "dequantize": kernel_dequantize.dequantize,
        "backward": kernel_backward.backward,
    }
    widths = [width for width, _ in PLANES[case.bits]] + [0, 0]
    plain = case.grid == CODEBOOK.value or (case.dtype == "bf16" and case.bits == 8)
    everything = {
        "BITS": case.bits,
        "P0": widths[0],
        "P1": widths[1],
        "P2": widths[2],
        "GRID": case.grid,
        "PART": case.part,
        "GROUP_SIZE": case.part,
        "UNIT": 1.0 if plain else kernel.unit(case.bits),
        "DTYPE": {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}[case.dtype],
        "CHANNEL": False,
        "TAIL": False,
        "EVEN_K": True,
        "SHARED": True,
        "PERIOD": 128,
        **dict(case.options),
    }
    function = kernels[case.kernel]
    return function, {name: everything[name] for name in function.arg_names if name in everything}


def _type_of(name: str, case: Case) -> str:
    if name == "y":
        return "*fp32"  # splits leave float32
    if name not in POINTERS:
        return "i32"
    return POINTERS[name].replace("bf16", case.dtype)


def _assembled(cubin: bytes) -> dict[str, int]:
    """What the disassembler says of a kernel: registers, spilled bytes, instructions of its longest loop."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (_cuobjdump(option, file.name) for option in ("-res-usage", "-sass"))
    found = re.search(r"REG:(\d+) STACK:(\d+).* LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no usage of registers: {usage}")
    registers, stack, local = map(int, found.groups())
    return {"registers": registers, "spilled": stack + local, "loop": _longest_loop(code)}


def _cuobjdump(option: str, path: str) -> str:
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout


def _longest_loop(code: str) -> int:
    """Instructions between the farthest jump back and its target; 0 without a loop."""
    lines = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", code)]
    jumps = [(at, re.search(r"BRA.*?0x([0-9a-f]+)", text)) for at, text in lines]
    loops = [(int(to[1], 16), at) for at, to in jumps if to is not None and int(to[1], 16) < at]
    first, last = max(loops, key=lambda loop: loop[1] - loop[0], default=(0, -1))
    return sum(first <= at <= last for at, _ in lines)


def table(found: Sequence[Case], capabilities: Sequence[int], processes: int) -> list[dict[str, Any]]:
    """Compile cases for kinds of devices; one row each, what was compiled beside what came of it."""
    jobs = [(case, capability) for case in found for capability in capabilities]
    with ProcessPoolExecutor(processes) as pool:
        results = list(pool.map(compile_case, *zip(*jobs, strict=True)))
    return [
        {"kernel": case.kernel, "bits": case.bits, "grid": GRIDS[case.grid], "part": case.part}
        | {"dtype": case.dtype, **dict(case.options), "sm": capability, **result}
        for (case, capability), result in zip(jobs, results, strict=True)
    ]


def faults(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong in a table: a spill, or more shared memory than there is."""
    wrong = []
    for row in rows:
        name = " ".join(f"{key}={row[key]}" for key in row if key not in ("registers", "loop"))
        if row["spilled"]:
            wrong.append(f"{name}: {row['spilled']} bytes are spilled; take smaller tiles or more warps")
        if row["shared"] > SHARED_MEMORY[row["sm"]]:
            wrong.append(f"{name}: more shared memory than the device has; take fewer stages")
    return wrong


def main() -> int:
    """Compile everything, write the table, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sm", type=int, nargs="+", default=sorted(SHARED_MEMORY), help="80, 90, 100")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--every", type=int, default=1, help="only one case of so many")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = table(list(cases())[:: arguments.every], arguments.sm, arguments.processes)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = arguments.out.with_suffix(".part")
    lines = ",\n".join(json.dumps(row) for row in rows)
    written.write_text(f'{{"triton": "{triton.__version__}", "rows": [\n{lines}\n]}}\n')
    os.replace(written, arguments.out)
    wrong = faults(rows)
    print(f"{len(rows)} compiled, {len(wrong)} faults; {arguments.out}")
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
