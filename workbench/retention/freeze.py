"""Freezing: what is not trained cannot be overwritten, and the rest must learn around it."""

from __future__ import annotations

import difflib
import fnmatch

from torch import nn

from workbench.errors import ModelError
from workbench.recipe.methods import Freeze


def freeze(model: nn.Module, settings: Freeze) -> int:
    """Take the parameters that a pattern matches out of training, in place.

    An output head that is tied to the embeddings is one parameter with them and has their name.

    Returns:
        How many numbers are left to train.

    Raises:
        ModelError: a pattern matches nothing, or nothing is left.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in settings.patterns:
        if not fnmatch.filter(names, pattern):
            raise ModelError(
                f"freeze.patterns: {pattern!r} matches none of the {len(names)} parameters of "
                f"{type(model).__name__}; the nearest is {_nearest(pattern, names)}"
            )
    for name, parameter in model.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.patterns):
            parameter.requires_grad_(False)
    left = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not left:
        raise ModelError(
            f"freeze.patterns: {', '.join(settings.patterns)} match all parameters of "
            f"{type(model).__name__}; leave some free to train"
        )
    return left


def _nearest(pattern: str, names: list[str]) -> str:
    return difflib.get_close_matches(pattern.replace("*", ""), names, n=1, cutoff=0.0)[0]
