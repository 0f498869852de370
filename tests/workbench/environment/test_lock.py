"""The lock that is in the tree, and the rules by which one is made."""

from __future__ import annotations

import re
import tomllib

from workbench.environment.lock import LOCK, ROOT, pins, tidied, without_hashes

RESOLVED = """\
nvidia-cublas==13.1.1.3 ; python_full_version < '3.14' and sys_platform == 'linux' \\
    --hash=sha256:aa
    # via torch
pyyaml==6.0.3 ; python_full_version < '3.14' and sys_platform != 'win32' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via accelerate
torch==2.13.0 ; python_full_version < '3.14' and sys_platform != 'win32' \\
    --hash=sha256:dd \\
    --hash=sha256:ee
    # via accelerate
triton==3.7.1 ; python_full_version < '3.14' and sys_platform == 'linux' \\
    --hash=sha256:ff
    # via torch
"""


def test_tidied_keeps_all_but_cuda_and_the_hashes_of_torch() -> None:
    lock = pins(tidied(RESOLVED))
    assert [without_hashes(pin) for pin in lock.values()] == [
        "pyyaml==6.0.3",
        "torch==2.13.0",
        "triton==3.7.1 ; sys_platform == 'linux'",
    ]
    assert re.findall(r"sha256:(\w+)", "".join(lock.values())) == ["bb", "cc", "ff"]


def test_the_lock_in_the_tree_is_whole() -> None:
    text = LOCK.read_text()
    lock = pins(text)
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links", text), "a lock names no host"
    assert sum(line[:1].isalnum() for line in text.splitlines()) == len(lock), "one version of each package"
    assert [name for name, pin in lock.items() if "--hash=sha256:" not in pin] == ["torch"]
    assert not [name for name in lock if name.startswith(("nvidia-", "cuda-"))]


def test_the_lock_satisfies_pyproject() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = {
        name: without_hashes(pin).split("==")[1].split(" ")[0] for name, pin in pins(LOCK.read_text()).items()
    }
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(lock[canonicalize_name(wanted.name)]), f"{line}: run `make lock`"
