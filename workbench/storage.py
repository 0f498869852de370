"""Files that are whole or absent: atomic writes, sealed folders, one store for everything that was made.

A folder is made under a temporary name, sealed by a manifest of sizes and hashes that is written
last, and renamed. Whatever kills the process leaves either nothing, a partial folder that the next
try goes on with, or a finished one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.errors import RunError

MANIFEST = "MANIFEST.json"


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def json_line(value: Any) -> str:
    """One line of a .jsonl file."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read JSON that the workbench wrote.

    Raises:
        RunError: the file is not JSON, so something else has changed it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not the JSON that was written ({error}); delete it and run again") from error


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, safely to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(folder: Path, **facts: Any) -> None:
    """Sync every file of a folder and write its manifest of sizes and hashes, last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        sync(path)
    entries = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": file_digest(p)} for p in files
    }
    write_json(folder / MANIFEST, {**facts, "files": entries})
    sync(folder)


def unsound(folder: Path, *, hashes: bool = False) -> str | None:
    """Say what is wrong with a sealed folder, or None: files there, of their size and, if asked, content."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{manifest} is missing"
    for name, entry in read_json(manifest)["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{path} has {path.stat().st_size} bytes, written were {entry['bytes']}"
        if hashes and file_digest(path) != entry["sha256"]:
            return f"{path} has changed since it was written"
    return None


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for as long as the process lives; it names its holder.

    Raises:
        RunError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunError(
                f"{what} is in use by {holder}; wait for it, or end it, then start the same command again"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


class Store:
    """Finished work under the fingerprint of all that determines it: `runs/.store/<fingerprint>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, fingerprint: str) -> Path:
        """Where the finished folder is, or will be."""
        return self.root / fingerprint

    def has(self, fingerprint: str) -> bool:
        """Whether the folder is finished and undamaged."""
        return unsound(self.path(fingerprint)) is None

    def make(self, fingerprint: str, build: Callable[[Path], None], *, resumable: bool = False) -> Path:
        """Give the finished folder of a fingerprint, building it if it is not there yet.

        Args:
            fingerprint: hash of everything that determines the content.
            build: fills the folder that it is given.
            resumable: `build` goes on from what a stopped try left in the folder; otherwise it starts empty.

        Raises:
            RunError: another process is building the same thing.
        """
        final = self.path(fingerprint)
        with locked(self.root / "locks" / fingerprint, f"{final.name[:12]} in the store"):
            if final.exists():
                if unsound(final) is None:
                    return final
                shutil.rmtree(final)
            partial = final.with_name(f"{fingerprint}.partial")
            if partial.exists() and not resumable:
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            try:
                if unsound(partial) is not None:  # else a try was stopped between sealing and renaming
                    build(partial)
                    seal(partial, fingerprint=fingerprint)
                os.rename(partial, final)
                sync(self.root)
            except Exception:
                if not resumable or not any(partial.iterdir()):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            return final
