"""Products in bfloat16 by torch's int8 kernel: those of the decoded weights, at every number of rows."""

from __future__ import annotations

import pytest
import torch
from lowbit import int8_rows

N, K = 128, 256


@pytest.mark.parametrize("m", [1, 3, 17, 65])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("hardware", [True, False])
def test_the_product_is_that_of_the_decoded_weights(m: int, shifted: bool, hardware: bool) -> None:
    generator = torch.Generator().manual_seed(m)
    values = torch.randint(-128, 128, (N, K), generator=generator)
    step = torch.rand(N, generator=generator) + 0.5
    shift = torch.randn(N, generator=generator) if shifted else None
    weight = int8_rows.int8_rows(values.to(torch.int8), step, shift)
    W = values.double() * step.bfloat16().double()[:, None]
    W = W if shift is None else W + shift.double()[:, None]

    x = torch.randn(m, K, generator=generator).bfloat16()
    expected = x.double() @ W.T
    found = int8_rows.forward(x, weight, hardware).double()
    assert (found - expected).norm() / expected.norm() < 2**-7
    dy = torch.randn(m, N, generator=generator)
    torch.testing.assert_close(int8_rows.backward(dy, weight).double(), dy.double() @ W, rtol=1e-4, atol=1e-2)
