"""Progress on anything that takes more than a few seconds: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0

console = Console(stderr=True)


class Advance(Protocol):
    """Report `n` more units done; keyword values are shown beside the bar, as in `advance(1, loss=2.31)`."""

    def __call__(self, n: int = 1, **shown: float | str) -> None:
        """Count, and show."""


@contextmanager
def progress(
    description: str, total: int | None, unit: str = "", *, done: int = 0, quiet: bool = False
) -> Iterator[Advance]:
    """Show how far a job of `total` units is, and when it will be through.

    Args:
        description: what is being done, in a few words.
        total: units of the whole job; None where nobody knows, as for a stream.
        unit: name of the unit, such as "steps".
        done: units that an earlier run has done already; they do not count in the rate.
        quiet: show nothing; for every process but the first.
    """
    if quiet:
        yield _silent
    elif console.is_terminal:
        with _bar(description, total, unit, done) as advance:
            yield advance
    else:
        yield _lines(description, total, unit, done)


def _silent(n: int = 1, **shown: float | str) -> None:
    pass


@contextmanager
def _bar(description: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[shown]}}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done, shown="")

        def advance(n: int = 1, **shown: float | str) -> None:
            bar.advance(task, n)
            if shown:
                bar.update(task, shown=_fields(shown))

        yield advance


def _lines(description: str, total: int | None, unit: str, done: int) -> Advance:
    start = last = time.monotonic()
    finished = done

    def advance(n: int = 1, **shown: float | str) -> None:
        nonlocal finished, last
        finished += n
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last = now
        so_far, left = f"{finished}", ""
        if total is not None:
            so_far += f"/{total}"
            left = f"({(now - start) / max(finished - done, 1) * (total - finished):.0f} s left)"
        line = " ".join(part for part in (f"{description}: {so_far} {unit}", _fields(shown), left) if part)
        console.print(line, highlight=False, soft_wrap=True)

    return advance


def _fields(shown: dict[str, float | str]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
