"""What a bench found, as one JSON file, a table in Markdown and a plot, per device and date."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowbit.bench.contestants import OURS

COLUMNS = (
    "layer",
    "N x K",
    "M",
    "what",
    "bits",
    "b_eff",
    "us",
    "p10",
    "p90",
    "x bf16",
    "floor us",
    "of floor",
)

PEER_COLORS = {
    "torch int4": "tab:red",
    "torch int8": "tab:pink",
    "gemlite": "tab:orange",
    "torchao": "tab:brown",
    "bitsandbytes nf4": "tab:cyan",
    "fp32 dx": "0.7",
}


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `<device>-<date>` .json, .md, .png and .svg; a run of the same day replaces its files.

    Args:
        found: as `run` gives it.
        folder: where; it is made if it is not there.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", found["device"].lower()).strip("-")
    stem = folder / f"{name}-{found['date']}"
    files = [Path(f"{stem}.{ending}") for ending in ("json", "md", "png", "svg")]
    _replace(files[0], json.dumps(found, indent=1) + "\n")
    _replace(files[1], table(found))
    _plot(found, files[2:])
    return files


def table(found: Mapping[str, Any]) -> str:
    """All cells in Markdown, with what the columns mean and what was refused."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    limits = found["limits"]
    lines = [
        f"# {found['device']}, {found['date']}",
        "",
        f"{versions}; {found['threads']} threads; {found['protocol']}; x in bfloat16, groups of "
        f"{found['group_size']}. Times are microseconds, the median of all samples with p10 and p90.",
        "",
        f"{found['floor']}; bandwidth {limits['bandwidth'] / 1e9:.1f} GB/s (copy, read and write) and rate "
        f"{limits['rate'] / 1e12:.3g} TFLOP/s ({limits['rate_dtype']}), both measured in this run.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    for cell in found["cells"]:
        row = (
            cell["layer"],
            f"{cell['n']} x {cell['k']}",
            cell["m"],
            cell["contestant"],
            cell["bits"],
            f"{cell['b_eff']:.3f}",
            *(f"{cell[key]:.1f}" for key in ("median", "p10", "p90")),
            f"{cell['ratio_to_bf16']:.2f}",
            f"{cell['floor']:.1f}",
            f"{cell['floor'] / cell['median']:.0%}",
        )
        lines.append("| " + " | ".join(map(str, row)) + " |")
    reasons = sorted({f"- {entry['contestant']}: {entry['reason']}" for entry in found["failed"]})
    return "\n".join([*lines, *(["", "Without a time:", "", *reasons] if reasons else []), ""])


def _plot(found: Mapping[str, Any], files: list[Path]) -> None:
    """Ratio to bf16 by rows of x: a panel a layer, a line a width, peers dashed."""
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(cell["layer"] for cell in found["cells"]))
    wide = min(len(layers), 3)
    high = -(-len(layers) // wide)
    figure = Figure(figsize=(1.5 + 4.2 * wide, 1.1 + 3.0 * high), layout="constrained")
    panels = list(figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True).flat)
    for panel in panels[len(layers) :]:
        panel.set_visible(False)
    for panel, layer in zip(panels, layers, strict=False):
        _panel(panel, layer, [cell for cell in found["cells"] if cell["layer"] == layer])
    figure.suptitle(f"Speed over bf16, {found['device']}, {found['date']}")
    figure.supxlabel("rows of x (M)")
    figure.supylabel("times as fast as bf16")
    known = {
        label: line
        for panel in figure.axes
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(known.values()), list(known), loc="outside right upper", frameon=False)
    for file in files:
        temporary = file.with_name(f".{file.name}")
        figure.savefig(temporary, format=file.suffix[1:], dpi=130)
        os.replace(temporary, file)


def _panel(panel: Any, layer: str, cells: list[dict[str, Any]]) -> None:
    from matplotlib import colormaps

    viridis = colormaps["viridis"]
    shape = f"{cells[0]['n']} x {cells[0]['k']}"
    panel.set_title(f"{layer}, {shape}", fontsize=10)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.axhline(1, color="0.6", linewidth=1)
    panel.grid(alpha=0.25)
    panel.yaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_major_formatter("{x:g}")
    lines = dict.fromkeys(
        (c["contestant"], c["bits"]) for c in cells if not c["contestant"].startswith("bf16")
    )
    for who, bits in lines:
        own = [cell for cell in cells if (cell["contestant"], cell["bits"]) == (who, bits)]
        rows, ratios = [cell["m"] for cell in own], [cell["ratio_to_bf16"] for cell in own]
        panel.plot(rows, ratios, **_line(who, bits, viridis((bits - 1) / 8)))


def _line(who: str, bits: int, shade: object) -> dict[str, object]:
    """How the line of a contestant looks: ours in a shade for each width, others in a color each."""
    if who not in OURS:
        fp32 = who.startswith("fp32")
        label, style = (who, ":") if fp32 else (f"{who}, {bits} bits", "--")
        return {"label": label, "color": PEER_COLORS.get(who, "0.2"), "linestyle": style}
    kind = who.removeprefix("ours").strip()  # "", "nf4" or "dx"
    look = {
        "": ("o", "-", f"{bits} bits"),
        "nf4": ("^", "-", "nf4, 4 bits"),
        "dx": ("s", "-.", f"dx, {bits} bits"),
    }
    marker, style, label = look[kind]
    color = "tab:purple" if kind == "nf4" else shade
    return {"label": label, "color": color, "linestyle": style, "marker": marker, "markersize": 3}


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(text)
    os.replace(temporary, file)
