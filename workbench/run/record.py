"""The record of a run: what was run, where, with which versions, when and at what cost."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from workbench import storage
from workbench.recipe import Loaded

PACKAGES = (
    "adaptation-workbench",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "deepspeed",
    "lm_eval",
    "datasets",
    "numpy",
    "scipy",
)


def provenance(loaded: Loaded, command: str) -> dict[str, Any]:
    """Everything about a run that is known before it starts; no environment values, so no secrets."""
    return {
        "schema": "workbench.record/1",
        "recipe": loaded.recipe.name,
        "digest": loaded.digest,
        "overrides": list(loaded.overrides),
        "command": command,
        "seed": loaded.recipe.seed,
        "started": now(),
        "python": sys.version.split()[0],
        "versions": {package: version(package) for package in PACKAGES},
        "device": device(),
        "git": git(),
    }


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def device() -> dict[str, Any]:
    """The machine: processor or accelerators, memory in bytes, threads."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "name": ", ".join(gpus) or _processor(),
        "accelerators": len(gpus),
        "memory_bytes": psutil.virtual_memory().total,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def git() -> dict[str, Any] | None:
    """Commit of the workbench's own source and whether it was changed since; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return {"commit": commit, "changed": bool(ask("status", "--porcelain"))} if commit else None


class Events:
    """`events.jsonl`: one line for each thing that happened, in order, across restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: str, **fields: Any) -> None:
        """Append one event with the time."""
        line = storage.json_line({"time": now(), "event": event, **fields})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
