"""The doctor compares what is installed with the lock."""

from __future__ import annotations

import importlib.metadata

import pytest

from workbench.doctor import differences

INSTALLED = {"rich": "15.0.0", "torch": "2.13.0+cpu"}


@pytest.mark.parametrize(
    ("lock", "found"),
    [
        ("rich==15.0.0 \\\n    --hash=sha256:aa\ntorch==2.13.0\n", []),
        ("rich==14.9.0 \\\n    --hash=sha256:aa\n", ["rich is 15.0.0, the lock says 14.9.0"]),
        ("torch==2.12.0\n", ["torch is 2.13.0+cpu, the lock says 2.12.0"]),
        ("scipy==1.17.1 \\\n    --hash=sha256:aa\n", ["scipy 1.17.1 is not installed"]),
        ("triton==3.7.1 ; sys_platform == 'darwin' \\\n    --hash=sha256:aa\n", []),
    ],
)
def test_differences(lock: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise importlib.metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert differences(lock) == found
