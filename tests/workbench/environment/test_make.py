"""Set-up: what counts as whole, one at a time, and what is said when it cannot go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.environment import make
from workbench.errors import RunError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own: copies of pyproject.toml and the lock, and a .venv that looks made."""
    for name in ("PROJECT", "LOCK"):
        copy = tmp_path / getattr(make, name).name
        copy.write_text(getattr(make, name).read_text())
        monkeypatch.setattr(make, name, copy)
    venv = tmp_path / ".venv"
    monkeypatch.setattr(make, "ROOT", tmp_path)
    monkeypatch.setattr(make, "VENV", venv)
    monkeypatch.setattr(make, "STAMP", venv / "complete.json")
    monkeypatch.setattr(make, "LOG", venv / "set-up.log")
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    make.STAMP.write_text(make.fingerprint())
    return tmp_path


def test_a_finished_environment_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "make", lambda: pytest.fail("made again"))
    assert make.main() == 0


@pytest.mark.parametrize("change", ["lock", "dependencies", "no stamp", "no python", "half a stamp"])
def test_what_is_not_whole_is_noticed(place: Path, change: str) -> None:
    assert make.is_whole()
    if change == "lock":
        make.LOCK.write_text(make.LOCK.read_text().replace("rich==", "rich==9"))
    elif change == "dependencies":
        make.PROJECT.write_text(make.PROJECT.read_text().replace('"rich>=14"', '"rich>=15"'))
    elif change == "no stamp":
        make.STAMP.unlink()
    elif change == "half a stamp":
        make.STAMP.write_text(make.STAMP.read_text()[:10])
    else:
        (make.VENV / "bin/python").unlink()
        (make.VENV / "bin/python").symlink_to(place / "gone")
    assert not make.is_whole()


def test_settings_of_tools_do_not_remake_the_environment(place: Path) -> None:
    make.PROJECT.write_text(make.PROJECT.read_text().replace("line-length = 110", "line-length = 111"))
    assert make.is_whole()


def test_clear_keeps_a_linked_folder_and_what_links_point_to(place: Path) -> None:
    disk, outside = place / "disk", place / "outside.txt"
    make.VENV.rename(disk)
    make.VENV.symlink_to(disk)
    outside.write_text("kept")
    (disk / "link").symlink_to(outside)
    make.clear()
    assert make.VENV.is_symlink() and not list(disk.iterdir()) and outside.read_text() == "kept"


def start(project: Path, *body: str) -> subprocess.Popen[str]:
    """Run these lines in a process of its own, while it holds the lock of `project`."""
    lines = ["import os, pathlib, subprocess, sys", "from workbench.environment import make"]
    lines += [
        "make.PROJECT = pathlib.Path(sys.argv[1])",
        "with make.alone():",
        *(f"    {line}" for line in body),
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(project)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_second_set_up_waits_for_orphans_of_the_first(place: Path) -> None:
    """Killed in the middle, a set-up leaves a pip behind; the next one must not start beside it."""
    begin_child = "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, close_fds=False)"
    first = start(make.PROJECT, begin_child, "print(child.pid, flush=True)", "os.kill(os.getpid(), 9)")
    assert first.stdout is not None
    orphan = int(first.stdout.readline())
    assert first.wait() == -9
    second = start(make.PROJECT, "print('alone')")
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    os.kill(orphan, 9)
    assert second.stdout.readline() == "alone\n"
    assert second.wait() == 0


def test_a_failed_step_says_where_what_and_what_to_do(place: Path) -> None:
    code = "import sys; print('Downloading'); sys.exit('OSError: [Errno 28] No space left on device')"
    with pytest.raises(RunError) as caught:
        make.step("packages", sys.executable, "-c", code)
    message = str(caught.value)
    assert "failed at: packages" in message and "| OSError" in message
    assert "the disk is full" in message and str(make.LOG) in message
    assert not list(place.glob(".venv/*.tmp"))


def test_missing_tools_are_named_together(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(make, "FREE_BYTES", 2**60)
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    make.STAMP.unlink()
    assert make.main() == 2
    said = capsys.readouterr().err
    for remedy in ("apt install g++", "-venv", "free some space"):
        assert remedy in said
    assert (make.VENV / "bin/python").exists(), "nothing is touched before all is there"
