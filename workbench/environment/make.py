"""Make `.venv` from requirements.lock; make it again when it is not whole.

`python -m workbench.environment.make` does nothing when .venv was made to its end from the present
lock. The stamp that says so is removed first and written last, so a set-up that was killed is
noticed. Plain venv and pip, in an order in which nothing is ever resolved but torch: the locked
packages first, with their hashes and without their dependencies; then torch, which finds all that it
needs already there, but for the CUDA libraries of its Linux build; then what is built with torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

from workbench.environment.lock import LOCK, ROOT, pins, without_hashes
from workbench.errors import RunError

VENV = ROOT / ".venv"
PROJECT = ROOT / "pyproject.toml"
STAMP = VENV / "complete.json"
LOG = VENV / "set-up.log"

BUILD_TOOLS = {"setuptools", "wheel", "ninja"}
BUILT_WITH_TORCH = {"deepspeed"}
FREE_BYTES = 4 * 1024**3  # .venv with a CPU build of torch, and its downloads
HEARTBEAT_S = 15.0

REMEDIES = {
    r"No space left on device": "the disk is full: free some space, or let .venv be a link to a larger disk",
    r"name resolution|Failed to establish|Max retries|Network is unreachable|timed out|CERTIFICATE_VERIFY": (
        "the package index cannot be reached: check the network, or point pip to a mirror (PIP_INDEX_URL)"
    ),
    r"DO NOT MATCH THE HASHES": "not the file that was locked: pip cache purge, or a bad mirror",
    r"No matching distribution found": "the index has no such version for this Python and machine",
    r"Python\.h: No such file": "no C headers of Python: apt install python3-dev (Debian, Ubuntu)",
}


def fingerprint() -> str:
    """Hash of all that decides what lies in .venv: the lock, the place, and what pyproject.toml installs."""
    project = tomllib.loads(PROJECT.read_text())
    installed = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    return hashlib.sha256(json.dumps([str(ROOT), LOCK.read_text(), installed]).encode()).hexdigest()


def is_whole() -> bool:
    """Tell whether .venv was made to its end from the present lock, and its Python still exists."""
    try:
        stamp = STAMP.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stamp == fingerprint() and os.access(VENV / "bin/python", os.X_OK)


def compiler() -> str | None:
    """Path of the C++ compiler that torch.compile and DeepSpeed would use."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next(filter(None, map(shutil.which, names)), None)


def missing() -> list[str]:
    """What this machine lacks for set-up, each with its remedy."""
    problems = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = f"python3.{sys.version_info.minor}-venv"
        problems.append(
            f"{sys.executable} cannot make virtual environments: apt install {package} (Debian, Ubuntu)"
        )
    if compiler() is None:
        problems.append(
            "no C++ compiler (c++, g++ or clang++): apt install g++ (Debian, Ubuntu), "
            "dnf install gcc-c++ (Fedora), xcode-select --install (macOS), or name yours in CXX"
        )
    free = shutil.disk_usage(VENV if VENV.is_dir() else ROOT).free
    if free < FREE_BYTES:
        problems.append(
            f"{free / 1024**3:.1f} GiB free for {VENV}, set-up needs {FREE_BYTES / 1024**3:.0f}: "
            "free some space, or let .venv be a link to a folder on a larger disk"
        )
    return problems


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold set-up to one process: a second one waits until the first, and every pip it began, has ended."""
    with PROJECT.open("r+b") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another set-up is at work here; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clear() -> None:
    """Empty .venv, stamp first; the folder itself may be a link to another disk and stays."""
    STAMP.unlink(missing_ok=True)
    for entry in VENV.iterdir() if VENV.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def step(title: str, *command: str) -> None:
    """Run one command of set-up: its output goes to the log, its last line now and then to the terminal.

    Raises:
        RunError: the command failed; says what it said last, and the remedy where it is known.
    """
    print(f"set-up: {title}", flush=True)
    start = time.monotonic()
    with LOG.open("a") as log:
        begin = log.tell()
        # The child inherits the lock of `alone`, which is so held even when this process is killed.
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdout=log, stderr=subprocess.STDOUT, close_fds=False
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(HEARTBEAT_S)
                except subprocess.TimeoutExpired:
                    last = _said(begin).rpartition("\n")[2].strip()
                    print(f"set-up:   {time.monotonic() - start:3.0f} s  {last[:90]}", flush=True)
        finally:
            process.kill()
    if process.returncode:
        said = _said(begin)
        tail = "\n".join(f"  | {line}" for line in said.splitlines()[-15:])
        remedy = next(
            (advice for sign, advice in REMEDIES.items() if re.search(sign, said)), "the log says more"
        )
        raise RunError(f"set-up failed at: {title}\n{tail}\n  {remedy}\n  whole log: {LOG}")


def _said(begin: int) -> str:
    """What the log holds from byte `begin` on."""
    with LOG.open("rb") as log:
        log.seek(begin)
        return log.read().decode(errors="replace").strip()


def _environment() -> dict[str, str]:
    """The caller's environment, less what would leak another Python into .venv."""
    outside = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"}
    return {key: value for key, value in os.environ.items() if key not in outside} | {
        "DS_BUILD_OPS": "0",  # none of DeepSpeed's compiled operations is used
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def _requirements(folder: Path, pins: dict[str, str], names: Collection[str]) -> str:
    """Write the pins of these names, with their hashes, to a file in `folder` and return its path."""
    path = folder / f"{min(names)}.txt"
    path.write_text("".join(f"{pins[name]}\n" for name in sorted(names)))
    return str(path)


def make() -> None:
    """Make .venv from requirements.lock.

    Raises:
        RunError: this machine lacks something, or a command failed; the next call starts again.
    """
    if problems := missing():
        raise RunError("set-up cannot begin:\n" + "\n".join(f"  - {problem}" for problem in problems))
    start = time.monotonic()
    clear()
    VENV.mkdir(exist_ok=True)
    base = getattr(
        sys, "_base_executable", sys.executable
    )  # not the Python of the .venv that was just emptied
    step(f"Python {sys.version.split()[0]} (details: .venv/set-up.log)", base, "-m", "venv", str(VENV))
    pip = [str(VENV / "bin/python"), "-m", "pip"]
    install = [*pip, "install", "--progress-bar=off", "--no-compile", "--no-build-isolation"]
    locked = [*install, "--no-deps", "--require-hashes", "-r"]
    lock = pins(LOCK.read_text())
    rest = lock.keys() - BUILD_TOOLS - BUILT_WITH_TORCH - {"torch"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = folder / "versions.txt"
        versions.write_text("".join(f"{without_hashes(pin)}\n" for pin in lock.values()))
        step("build tools", *locked, _requirements(folder, lock, BUILD_TOOLS))
        step(f"{len(rest)} packages", *locked, _requirements(folder, lock, rest))
        step("torch", *install, "torch", "-c", str(versions))
        step("deepspeed", *locked, _requirements(folder, lock, BUILT_WITH_TORCH))
    step("the workbench itself", *install, "--no-deps", "--editable", ".")
    step("check", *pip, "check")
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(fingerprint())
    os.replace(temporary, STAMP)
    print(f"set-up: done in {time.monotonic() - start:.0f} s", flush=True)


def main() -> int:
    """Make .venv unless it is whole; exit code 0, or 2 with what the user can do."""
    try:
        if not is_whole():
            with alone():
                if not is_whole():
                    make()
    except RunError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("set-up: interrupted; the next make starts it again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
