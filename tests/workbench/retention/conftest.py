"""The training of control_worker.py, for tests in this process and in others."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

WORKER = Path(__file__).with_name("control_worker.py")


@pytest.fixture(scope="session")
def control() -> SimpleNamespace:
    """What control_worker.py defines."""
    return SimpleNamespace(path=WORKER, **runpy.run_path(str(WORKER)))
