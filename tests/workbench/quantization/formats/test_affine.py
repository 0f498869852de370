"""The format decodes as drawn, splits by rows, and counts bits as the arithmetic of the papers does."""

from __future__ import annotations

import pytest
import torch

from workbench.quantization.formats.affine import AffineWeight, stored_bits
from workbench.quantization.grid import Grid
from workbench.quantization.methods import rtn


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric", "expected"),
    [
        (4, 128, False, 4 + (16 + 4) / 128),  # 4.156
        (4, 128, True, 4.125),
        (3, 32, False, 3 + (16 + 3) / 32),
        (2, 64, True, 2.25),
        (1, 128, False, 1 + 17 / 128),
        (8, 4096, True, 8 + 16 / 4096),  # per channel
    ],
)
def test_real_bits_of_a_large_matrix(bits: int, group_size: int, symmetric: bool, expected: float) -> None:
    stored = stored_bits(1024, 4096, bits, 4096 // group_size, symmetric=symmetric)
    assert stored / (1024 * 4096) == expected


def test_scattered_groups_cost_an_index_a_column() -> None:
    sizes = (64, 128, 4, 4)
    with_index = stored_bits(*sizes, symmetric=True, g_idx=True)
    assert with_index - stored_bits(*sizes, symmetric=True) == 16 * 128


def test_rows_that_do_not_fill_words_cost_what_they_take() -> None:
    # 172 columns of 3 bits are six times 3 words, the last not full; 64 zero points of 3 bits are 6 words
    assert stored_bits(64, 172, 3, 1, symmetric=False) == 64 * 18 * 32 + 64 * 16 + 6 * 32


@pytest.mark.parametrize("symmetric", [True, False])
def test_split_cuts_rows(symmetric: bool) -> None:
    whole = rtn.quantize(torch.randn(12, 32), Grid(4, 16, symmetric))
    g_idx = torch.arange(32).remainder(2).to(torch.int16)
    whole = AffineWeight(whole.codes, whole.scale, whole.zero_point, g_idx, 4)
    parts = whole.split([6, 2, 4])
    assert [part.codes.shape[0] for part in parts] == [6, 2, 4]
    assert torch.equal(torch.cat([part.dequantize() for part in parts]), whole.dequantize())
