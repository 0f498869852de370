"""Progress is said in plain lines where there is no terminal, with what is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from workbench import progress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed when every report is due at once."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=200))
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    return written


def test_a_line_tells_count_fields_and_what_is_left(lines: io.StringIO) -> None:
    with progress.progress("train", 4, "steps") as advance:
        advance(1, loss=2.34567)
    assert lines.getvalue().startswith("train: 1/4 steps loss 2.346 (")
    assert lines.getvalue().endswith("s left)\n")


def test_work_done_before_counts_but_does_not_speed_up_the_forecast(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("train", 100, "steps", done=90) as advance:
        advance(5)
    assert "95/100 steps (10 s left)" in lines.getvalue()


def test_a_stream_without_an_end_has_no_forecast(lines: io.StringIO) -> None:
    with progress.progress("read", None, "documents") as advance:
        advance(7)
    assert lines.getvalue() == "read: 7 documents\n"


def test_quiet_is_quiet(lines: io.StringIO) -> None:
    with progress.progress("train", 4, quiet=True) as advance:
        advance(4, loss=1.0)
    assert lines.getvalue() == ""
