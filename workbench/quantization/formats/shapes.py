"""Whether tensors out of a file can be those of a matrix."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from workbench.errors import ModelError


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the tensors of a matrix with what its shape and layout ask for.

    Args:
        tensors: by name; any of the expected ones may be missing.
        expected: shapes by name.

    Raises:
        ModelError: names the first tensor that is different.
    """
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise ModelError(
                f"{name}: shape {list(tensor.shape)}, its layout asks for {list(expected[name])}"
            )
