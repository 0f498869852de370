"""LLaMA Pro (arXiv 2401.02415): train the blocks that were added behind others, and nothing else.

The blocks themselves, and why they change nothing at first, are in models/expansion.py.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from workbench import models
from workbench.errors import ModelError


def freeze(model: PreTrainedModel) -> None:
    """Mark the added blocks as what is trained.

    Raises:
        ModelError: the model has no added blocks.
    """
    added = (getattr(model.config, "expansion", None) or {}).get("added")
    if not added:
        raise ModelError(
            f"{type(model).__name__} has no added blocks to train; expand it first (method llama-pro)"
        )
    model.requires_grad_(False)
    blocks = models.blocks(model)
    for index in added:
        blocks[index].requires_grad_(True)
