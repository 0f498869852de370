"""Every format is multiplied by, as it is stored where an operation knows it, and decoded elsewhere."""

from __future__ import annotations

import pytest
import torch

from workbench.quantization.formats import Weight, layout_of
from workbench.quantization.formats.codebook import BlockValues, CodebookWeight
from workbench.quantization.grid import Grid
from workbench.quantization.methods import rtn
from workbench.quantization.product import AffineProduct, CodebookProduct, DenseProduct, product


def codebook(in_features: int, block_size: int) -> CodebookWeight:
    codes = torch.randint(16, (6, in_features), dtype=torch.uint8)
    blocks = -(-codes.numel() // block_size)
    return CodebookWeight(codes, BlockValues(torch.rand(blocks)), None, "fp4", block_size)


@pytest.mark.parametrize(
    ("weight", "dtype", "kind"),
    [
        (rtn.quantize(torch.randn(6, 64), Grid(3, 32, False)), torch.float32, AffineProduct),
        (rtn.quantize(torch.randn(6, 64), Grid(3, 32, False)), torch.float64, DenseProduct),
        (codebook(256, 64), torch.float16, CodebookProduct),
        (codebook(256, 64), torch.float64, DenseProduct),
        (codebook(256, 512), torch.float32, DenseProduct),  # a block of two rows
        (codebook(96, 32), torch.float32, DenseProduct),  # words of two rows
    ],
)
def test_product_of_each_format(weight: Weight, dtype: torch.dtype, kind: type) -> None:
    dense = weight.dequantize()
    made = product(layout_of(weight), weight.tensors(), (dense.shape[0], dense.shape[1]), dtype)
    assert type(made) is kind and made.serves(dtype)
    assert made.serves(torch.float64) == (dtype == torch.float64)
    x = torch.randn(3, dense.shape[1], dtype=dtype)
    tolerance = 1e-2 if dtype == torch.float16 else 1e-4
    torch.testing.assert_close(
        made(x).double(), x.double() @ dense.T.double(), rtol=tolerance, atol=tolerance
    )
