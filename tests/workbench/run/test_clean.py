"""Cleaning keeps what a run links to and what a process is building."""

from __future__ import annotations

from pathlib import Path

from workbench import storage
from workbench.run.clean import clean
from workbench.storage import Store


def test_only_what_nothing_needs_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    for name in ("linked", "loose"):
        store.make(name, lambda out: (out / "x").write_text("x"))
    (store.root / "building.partial").mkdir()
    (store.root / "stopped.partial").mkdir()
    (tmp_path / "run" / "stages").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "00").symlink_to(store.path("linked"))
    with storage.locked(store.root / "locks" / "building", "building"):
        clean(tmp_path, remove=False)
        assert store.path("loose").exists()
        clean(tmp_path, remove=True)
    left = {path.name for path in store.root.iterdir()}
    assert left == {"linked", "building.partial", "locks"}
