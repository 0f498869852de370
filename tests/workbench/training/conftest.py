"""The toy training of worker.py, for tests in this process and in others."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    """What worker.py defines."""
    return SimpleNamespace(path=WORKER, **runpy.run_path(str(WORKER)))


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, toy: SimpleNamespace) -> Path:
    """Folder of the toy's token files."""
    folder: Path = tmp_path_factory.mktemp("tokens")
    toy.make_mixture(folder)
    return folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, toy: SimpleNamespace, tokens: Path) -> Path:
    """Folder of an undisturbed run in float32 with the default engine, its weights in final.safetensors."""
    out: Path = tmp_path_factory.mktemp("plain")
    toy.main({"folder": str(tokens), "out": str(out)})
    return out
