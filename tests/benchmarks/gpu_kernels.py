"""One CUDA device: the promises of the low-bit kernels on it, then their speed; nothing needs a build before.

    PYTHONPATH=.:kernels python tests/benchmarks/gpu_kernels.py --out FOLDER [--models 8b 70b] [--bits 4 8]
        [--minutes 7] [--after "8b down"]

In this order, and no further than what fails: the device; `pytest -m gpu tests/kernels` (promises.txt); the
bench, layer by layer, its files written anew after each. It stops when the minutes are up and says with which
--after the next command goes on, into another folder. Needs torch, triton, pytest, pytest-timeout and
matplotlib, and of this project the folders kernels and tests. Exits with 2 where it cannot run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CANNOT = 2  # exit code


def promises(out: Path) -> int:
    """Run the tests that need a GPU; their exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    done = subprocess.run(
        [*command, "tests/kernels"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    (out / "promises.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    print("\n".join(done.stdout.splitlines()[-15:]), flush=True)
    return done.returncode


def summary(cells: list[dict[str, Any]]) -> str:
    """Times as fast as bf16: a line a contestant, a column for each number of rows."""
    rows = sorted({cell["m"] for cell in cells})
    lines = [" " * 24 + "".join(f"{m:>8}" for m in rows)]
    for name in dict.fromkeys((cell["contestant"], cell["bits"]) for cell in cells):
        own = {
            cell["m"]: cell["ratio_to_bf16"] for cell in cells if (cell["contestant"], cell["bits"]) == name
        }
        ratios = "".join(f"{own[m]:>8.2f}" if m in own else " " * 8 for m in rows)
        lines.append(f"{name[0]:<20}{name[1]:>4}{ratios}")
    return "\n".join(lines)


def measure(options: argparse.Namespace, kind: str, deadline: float) -> bool:
    """Measure layer by layer until the deadline; whether all of our products agree with the reference."""
    import torch
    from lowbit.bench import plan_for, report, run
    from lowbit.bench.contestants import OURS

    device = torch.device(kind)
    plan = plan_for(device, options.models, options.bits)
    names = [name for name, _ in plan.layers]
    left = plan.layers[names.index(options.after) + 1 if options.after else 0 :]
    found: dict[str, Any] = {}
    for name, shape in left:
        if time.monotonic() > deadline:
            done = names[: names.index(name)]
            print("the minutes are up;", f"go on with --after {done[-1]!r}" if done else "no layer was begun")
            break
        part = run(replace(plan, layers=((name, shape),)), device, lambda: None)
        print(
            f"\n{name}, {shape[0]} x {shape[1]}, times as fast as bf16\n{summary(part['cells'])}", flush=True
        )
        found = part | {key: found.get(key, []) + part[key] for key in ("cells", "failed")}
        report.write(found, options.out)
        if any(entry["contestant"] in OURS for entry in part["failed"]):
            print(f"{name}: a product of ours does not agree with the reference; see the results", flush=True)
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--models", nargs="+", default=("8b", "70b"), help="LLaMA-3 shapes: 1b, 3b, 8b, 70b")
    parser.add_argument("--bits", nargs="+", type=int, default=(), help="widths, 1 to 8; all by default")
    parser.add_argument("--minutes", type=float, default=7, help="after which no layer is begun")
    parser.add_argument("--after", help="the last layer of an earlier command")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    import torch

    if not torch.cuda.is_available():
        print(
            "gpu-kernels: no CUDA device: torch sees none; run this on a machine with a GPU", file=sys.stderr
        )
        raise SystemExit(CANNOT)
    options.out.mkdir(parents=True, exist_ok=True)
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    if not options.after and (code := promises(options.out)):
        raise SystemExit(code)
    raise SystemExit(0 if measure(options, "cuda", deadline) else 1)


if __name__ == "__main__":
    main()
