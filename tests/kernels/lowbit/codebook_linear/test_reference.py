"""The reference is scale * table[code], weight by weight."""

from __future__ import annotations

import torch
from lowbit.affine_linear import pack
from lowbit.codebook_linear import codebook_linear, dequantize_packed


def test_product_with_the_weights_of_the_formula() -> None:
    codes, scale, table = torch.randint(16, (6, 40)), torch.rand(6, 4).half(), torch.randn(16)
    weight = torch.empty(6, 40)
    for n in range(6):
        for k in range(40):
            weight[n, k] = float(scale[n, k // 10]) * float(table[codes[n, k]])
    packed = pack(codes, 4), scale, table
    assert torch.equal(dequantize_packed(*packed, 40), weight)
    x = torch.randn(2, 3, 40)
    assert torch.equal(codebook_linear(x, *packed), x @ weight.T)
    assert codebook_linear(x.bfloat16(), *packed).dtype == torch.bfloat16
