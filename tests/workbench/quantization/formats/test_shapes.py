"""Tensors that do not fit are refused by name; missing ones are not asked for."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import ModelError
from workbench.quantization.formats.shapes import check_shapes


def test_names_what_is_wrong() -> None:
    expected: dict[str, tuple[int, ...]] = {"scale": (3,), "codes": (3, 2)}
    check_shapes({"scale": torch.zeros(3)}, expected)
    with pytest.raises(ModelError, match=r"codes: shape \[2, 3\].* \[3, 2\]"):
        check_shapes({"scale": torch.zeros(3), "codes": torch.zeros(2, 3)}, expected)
