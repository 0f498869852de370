"""metrics.jsonl: one JSON object a line, for steps and for probes; nothing in it is ever written twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from workbench import storage
from workbench.errors import RunError


class MetricsLog:
    """Appends rows to a file that another run may have begun."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the log of a training that goes on from `step`.

        Args:
            path: the file; made if it is not there.
            step: rows of later steps, and a torn last line, are cut off, because these steps come again.
        """
        self.path = path
        rows = [row for row in read(path) if row["step"] <= step] if step else []
        partial = path.with_name(f"{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text("".join(storage.json_line(row) for row in rows), encoding="utf-8")
            os.replace(partial, path)
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, **row: Any) -> None:
        """Append one row.

        Raises:
            RunError: the disk is full or the file has become unwritable.
        """
        try:
            self._file.write(storage.json_line(row))
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path}: cannot be written ({error}); make room or make the folder writable, then "
            "start the same command again"
        )


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, without the last one where a killed process tore it."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
