"""When the implementation of an operation may be called without torch's dispatcher.

On its way to a Python implementation the dispatcher takes as long as the product with a small matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dispatched(x: Tensor) -> bool:
    """Whether the operation on x must be seen as one: by autograd, by a compiler, or for another device."""
    plain = x.is_cpu and type(x) is Tensor and not (x.requires_grad and torch.is_grad_enabled())
    return not plain or torch.compiler.is_compiling()
