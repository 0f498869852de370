"""requirements.lock: every package of the environment at an exact version, with hashes for all but torch.

`python -m workbench.environment.lock` resolves pyproject.toml anew, in a throw-away environment. The
lock names no index and holds every file of each release, so that it serves Linux and macOS, any
mirror, and every Python that pyproject.toml allows. Which build of torch is right depends on the
machine, so torch has no hashes and the CUDA libraries that one of its builds brings are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
RESOLVER = "uv==0.13.8"
HEADER = "# The whole closure of pyproject.toml. Renew it with `make lock`.\n"

# What `environments` in pyproject.toml makes true of every package says nothing about one of them.
ALWAYS_TRUE = (
    "python_full_version < '3.14' and ",
    " and sys_platform != 'win32'",
    " ; sys_platform != 'win32'",
)


def pins(lock: str) -> dict[str, str]:
    """Take a lock apart: package name to its lines (version, marker, hashes, and who asks for it)."""
    blocks = re.findall(r"^[a-z0-9].*(?:\n[ \t].*)*", lock, flags=re.MULTILINE)
    return {block.split("==")[0]: block for block in blocks}


def without_hashes(pin: str) -> str:
    """Reduce a pin to one line of name, version and marker, as pip wants it in a constraints file."""
    return re.sub(r"\s*\\$", "", pin.splitlines()[0])


def tidied(resolved: str) -> str:
    """Turn what the resolver wrote into the lock: no hashes for torch, no CUDA library, no idle marker."""
    for marker in ALWAYS_TRUE:
        resolved = resolved.replace(marker, "")
    kept = {name: pin for name, pin in pins(resolved).items() if not name.startswith(("nvidia-", "cuda-"))}
    kept["torch"] = without_hashes(kept["torch"])
    return HEADER + "".join(f"{pin}\n" for pin in kept.values())


def renew() -> None:
    """Resolve pyproject.toml into requirements.lock and print which versions changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", RESOLVER], check=True)
        command = [str(folder / "bin/uv"), "pip", "compile", "pyproject.toml", "--extra=dev", "--quiet"]
        command += ["--universal", "--python-version=3.11", "--fork-strategy=fewest", "--generate-hashes"]
        command += ["--no-header", "--annotation-style=line", f"--output-file={folder / 'resolved'}"]
        subprocess.run(command, cwd=ROOT, check=True)
        renewed = tidied((folder / "resolved").read_text())
    before = {without_hashes(pin) for pin in pins(LOCK.read_text()).values()} if LOCK.exists() else set()
    after = {without_hashes(pin) for pin in pins(renewed).values()}
    temporary = LOCK.with_suffix(".tmp")
    temporary.write_text(renewed)
    os.replace(temporary, LOCK)
    for line in sorted(before ^ after):
        print("-" if line in before else "+", line)
    print(f"{len(after)} packages, {len(after - before)} changed")


if __name__ == "__main__":
    renew()
