"""Kernels compile without a GPU for the ones that exist, and none spills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[3] / "kernels" / "lowbit" / "results" / "aot.json"


@pytest.mark.parametrize("capability", ["80", "90", "100"])
def test_a_sample_of_the_table_compiles(tmp_path: Path, capability: str) -> None:
    out = tmp_path / "aot.json"
    command = [sys.executable, "-m", "lowbit.aot", "--sm", capability, "--every", "97", "--processes", "1"]
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    outcome = subprocess.run([*command, "--out", out], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    rows = json.loads(out.read_text())["rows"]
    assert rows and all(row["sm"] == int(capability) and row["registers"] <= 255 for row in rows)


def test_the_table_on_record_has_no_spills() -> None:
    rows = json.loads(RESULTS.read_text())["rows"]
    assert {row["sm"] for row in rows} == {80, 90, 100}
    assert {row["bits"] for row in rows} == set(range(1, 9))
    assert not [row for row in rows if row["spilled"]]
