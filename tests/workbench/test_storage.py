"""Files are whole or absent, and the store builds each thing once."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from workbench import storage
from workbench.errors import RunError
from workbench.storage import Store


def test_a_failed_write_keeps_the_old_content_and_leaves_no_litter(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    storage.write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        storage.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert storage.digest({"a": 1, "b": [2]}) == storage.digest({"b": [2], "a": 1})
    assert storage.digest({"a": 1}) != storage.digest({"a": 2})


@pytest.mark.parametrize("damage", ["shorten", "delete", "flip"])
def test_a_sealed_folder_notices_damage(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "sub" / "weights"
    file.parent.mkdir()
    file.write_bytes(b"0123456789")
    storage.seal(tmp_path)
    assert storage.unsound(tmp_path, hashes=True) is None
    if damage == "shorten":
        file.write_bytes(b"012345")
    elif damage == "delete":
        file.unlink()
    else:
        file.write_bytes(b"0123456780")
    problem = storage.unsound(tmp_path, hashes=True)
    assert problem and str(file) in problem


def test_a_folder_without_manifest_is_unsound(tmp_path: Path) -> None:
    assert storage.unsound(tmp_path) is not None


def test_the_store_builds_once_and_again_after_damage(tmp_path: Path) -> None:
    store, builds = Store(tmp_path), []

    def build(out: Path) -> None:
        builds.append(out)
        (out / "x").write_text("content")

    made = store.make("f", build)
    assert store.make("f", build) == made and len(builds) == 1
    (made / "x").write_text("other length")
    assert not store.has("f")
    store.make("f", build)
    assert len(builds) == 2 and (made / "x").read_text() == "content"


def test_a_failed_build_leaves_nothing_unless_it_can_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(out: Path) -> None:
        (out / "half").write_text("x")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        store.make("f", fail)
    assert not store.path("f").exists() and not list(tmp_path.glob("*.partial"))
    with pytest.raises(ValueError, match="broken"):
        store.make("g", fail, resumable=True)
    assert store.make("g", lambda out: None, resumable=True).joinpath("half").exists()


def test_a_folder_that_was_sealed_and_not_renamed_is_not_built_again(tmp_path: Path, monkeypatch) -> None:
    store, builds = Store(tmp_path), []
    with monkeypatch.context() as stopped:
        stopped.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.make("f", builds.append, resumable=True)
    store.make("f", builds.append, resumable=True)
    assert len(builds) == 1 and store.has("f")


def _hold(path: Path, held, done) -> None:
    with storage.locked(path, "the folder"):
        held.set()
        done.wait(30)


def test_a_lock_is_refused_to_a_second_process_and_names_the_first(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", held, done))
    process.start()
    try:
        assert held.wait(30)
        refused = pytest.raises(RunError, match=f"the folder is in use by process {process.pid}")
        with refused, storage.locked(tmp_path / "lock", "the folder"):
            pass
    finally:
        done.set()
        process.join(30)
    with storage.locked(tmp_path / "lock", "the folder"):
        pass
