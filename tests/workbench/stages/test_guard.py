"""A guarded row has its parent's weights, and goes on having them when the parent is gone."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from workbench import recipe, storage
from workbench.stages import guard
from workbench.stages.job import job_of
from workbench.stages.result import StageResult
from workbench.storage import Store

RECIPE = """\
name: tiny
description: a guard
seed: 1
model: {{path: {folder}}}
stages:
  - {{kind: guard, guard: {{kind: miniworld}}, place: output}}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a file in a folder of its own."""
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_text("w")
    (folder / "inner" / "notes").write_text("n")
    return folder


def test_files_are_shared_and_outlive_their_first_name(source: Path, tmp_path: Path) -> None:
    guard.share(source, tmp_path / "target")
    assert (tmp_path / "target" / "weights").samefile(source / "weights")
    shutil.rmtree(source)
    assert (tmp_path / "target" / "inner" / "notes").read_text() == "n"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_what_cannot_be_linked_is_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    guard.share(source, tmp_path / "target")
    assert (tmp_path / "target" / "inner" / "notes").read_text() == "n"
    assert not (tmp_path / "target" / "weights").samefile(source / "weights")


def test_a_full_disk_is_not_copied_onto(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="full"):
        guard.share(source, tmp_path / "target")


def test_a_model_that_was_brought_in_stays_a_link(tiny_model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tiny_model_folder))
    store = Store(tmp_path / "store")
    job = job_of(recipe.load(path).recipe, "guarded", store)
    assert job.parent
    parent = job.parent.model_folder
    parent.parent.mkdir(parents=True)
    parent.symlink_to(tiny_model_folder, target_is_directory=True)
    store.make(job.fingerprint, lambda out: guard.build(job, out))
    assert job.model_folder.resolve() == tiny_model_folder.resolve()
    assert StageResult.read(job.folder).details == {
        "guard": "miniworld",
        "place": "output",
        "guarded": "base",
    }
    assert storage.unsound(job.folder) is None
