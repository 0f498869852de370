"""L2-SP: a quadratic pull towards the weights of the start (Li et al., arXiv 1802.01483, equation 2).

The penalty is lambda/2 |theta - theta_0|^2 over all weights that are trained.
"""

from __future__ import annotations

from workbench.recipe.methods import L2sp
from workbench.training import Anchor


def anchor(settings: L2sp) -> Anchor:
    """The pull for the loop; theta_0 are the weights that training starts with."""
    return Anchor(settings.strength)
