"""What runs take on disk, and what nothing needs any more."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.table import Table

from workbench import storage
from workbench.errors import RunError


def clean(runs: Path, *, remove: bool) -> Table:
    """List the store's entries by size; with `remove`, delete those that no run folder links to.

    Text prepared for training (tokenizers, tokens) is linked by no run: it goes too, and is made again if
    needed. What a running process holds is kept.
    """
    store = runs / ".store"
    linked = {link.resolve() for link in runs.rglob("*") if link.is_symlink() and store not in link.parents}
    table = Table("entry", "bytes", "kept", title=f"{store}")
    entries = [path for path in sorted(store.glob("*")) if path.is_dir() and path.name != "locks"]
    for entry in entries:
        size = sum(
            path.stat().st_size for path in entry.rglob("*") if path.is_file() and not path.is_symlink()
        )
        kept = entry.resolve() in linked or (entry.suffix == ".partial" and _in_use(entry))
        if remove and not kept:
            shutil.rmtree(entry)
        table.add_row(
            entry.name[:20], f"{size:,}", "yes" if kept else "removed" if remove else "no, --yes removes it"
        )
    return table


def _in_use(partial: Path) -> bool:
    try:
        with storage.locked(partial.parent / "locks" / partial.stem, partial.name):
            return False
    except RunError:
        return True
