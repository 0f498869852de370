"""The kernels give the products of a codebook: under the interpreter, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROMISES = Path(__file__).with_name("products.py")


def run(interpreted: bool) -> None:
    """Run the promises in a process of their own, which imports triton with or without its interpreter."""
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
    outcome = subprocess.run([*command, PROMISES], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.timeout(900)  # a minute on an idle core
def test_interpreted() -> None:
    run(interpreted=True)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    run(interpreted=False)
