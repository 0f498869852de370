"""What work costs is noticed while it is done."""

from __future__ import annotations

import time

import torch

from workbench.stages.measure import measured


def test_memory_that_was_held_and_given_back_counts() -> None:
    with measured() as before:
        pass
    with measured() as cost:
        held = torch.ones(64 * 2**20 // 4)
        time.sleep(0.2)
        del held
    assert cost.peak_memory_bytes - before.peak_memory_bytes > 48 * 2**20
    assert cost.seconds >= 0.2
