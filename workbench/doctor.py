"""Look over the installation: Python, compiler, disk, device, and every package against the lock."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from workbench.environment.lock import LOCK, ROOT, pins, without_hashes
from workbench.environment.make import VENV, compiler, is_whole


def differences(lock: str) -> list[str]:
    """What is installed otherwise than the lock says; a pin with a marker may be absent.

    Args:
        lock: text of requirements.lock.

    Returns:
        One sentence a package.
    """
    found = []
    for name, pin in pins(lock).items():
        requirement, _, marker = without_hashes(pin).partition(" ; ")
        wanted = requirement.split("==")[1]
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if not marker:
                found.append(f"{name} {wanted} is not installed")
            continue
        if installed.split("+")[0] != wanted:  # a local label says how torch was built: 2.13.0+cpu
            found.append(f"{name} is {installed}, the lock says {wanted}")
    return found


def report() -> int:
    """Print what was looked at and what was found.

    Returns:
        Exit code: 0 all is well, 2 something needs the user.
    """
    lock = LOCK.read_text()
    wrong = differences(lock)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if not is_whole():
        wrong.append(f"{VENV} was not made from the present lock")
    if compiler() is None:
        wrong.append("no C++ compiler: torch.compile cannot work")
    elif not headers:
        wrong.append("no Python.h: torch.compile cannot work; apt install python3-dev (Debian, Ubuntu)")
    print(f"python    {sys.version.split()[0]}  {sys.executable}")
    print(f"compiler  {compiler() or 'none'}")
    print(f"packages  {len(pins(lock))} in the lock, {len(differences(lock))} differ")
    print(f"device    {_device()}")
    print(f"disk      {shutil.disk_usage(ROOT).free / 1024**3:.0f} GiB free under {ROOT}")
    for sentence in wrong:
        print(f"wrong: {sentence}")
    if wrong:
        print("`make clean-env`, then the command that you wanted, makes the environment again")
    return 2 if wrong else 0


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (torch {torch.__version__})"
    return f"CPU, {os.cpu_count()} cores (torch {torch.__version__})"
