"""L2-SP is an anchor that weighs every weight alike."""

from __future__ import annotations

from workbench.recipe.methods import L2sp
from workbench.retention import l2sp


def test_is_the_pull_of_its_strength() -> None:
    anchor = l2sp.anchor(L2sp(strength=0.25))
    assert anchor.strength == 0.25 and anchor.importance is None
