"""The kernels give the products of both references: under the interpreter, and on a GPU if there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPERATIONS = ("affine_linear", "codebook_linear")


def run(operation: str, *, interpreted: bool) -> None:
    """Run the promises of an operation in a process of their own, with or without triton's interpreter."""
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1" if interpreted else "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=--import-mode=importlib",
    ]
    promises = Path(__file__).parents[1] / operation / "products.py"
    outcome = subprocess.run([*command, promises], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.timeout(900)  # a minute on an idle core
@pytest.mark.parametrize("operation", OPERATIONS)
def test_interpreted(operation: str) -> None:
    run(operation, interpreted=True)


@pytest.mark.gpu
@pytest.mark.parametrize("operation", OPERATIONS)
def test_on_a_gpu(operation: str) -> None:
    run(operation, interpreted=False)
