"""The bench of the kernels, with a bar of progress and its files in the folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lowbit.bench import plan_for, report, run
from lowbit.bench.contestants import OURS

from workbench.errors import RunError
from workbench.progress import progress

RESULTS = Path("kernels/lowbit/results")


def bench(
    models: Sequence[str] = (), bits: Sequence[int] = (), folder: Path = RESULTS
) -> tuple[str, list[Path]]:
    """Measure the kernels on the device at hand, beside bf16 and other packages.

    Args:
        models: whose shapes, of 1b, 3b, 8b and 70b; () for those that suit the device.
        bits: widths; () for those that suit the device.
        folder: where the results go.

    Returns:
        The table in Markdown and the files: JSON, Markdown, PNG and SVG.

    Raises:
        RunError: no such shapes or widths, or a product that does not agree with the reference.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        plan = plan_for(device, models, bits)
    except ValueError as error:
        raise RunError(f"bench: {error}") from error
    with progress(f"bench on {device.type}", plan.cells, "shapes and rows") as advance:
        found = run(plan, device, advance)
    files = report.write(found, folder)
    if red := [entry for entry in found["failed"] if entry["contestant"] in OURS]:
        layers = ", ".join(sorted({entry["layer"] for entry in red}))
        raise RunError(f"bench: the products of {layers} do not agree with the reference; see {files[0]}")
    return report.table(found), files
