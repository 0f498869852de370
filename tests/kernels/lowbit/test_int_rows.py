"""Products in bfloat16 by torch's integer kernels: those of the decoded weights, at every number of rows."""

from __future__ import annotations

import pytest
import torch
from lowbit import int_rows
from torch import Tensor

N, K = 128, 256


def weights(bits: int, groups: int, *, shifted: bool, scattered: bool) -> tuple[int_rows.IntRows, Tensor]:
    """Laid out, and W [N, K] in float64 with the scales that are kept."""
    generator = torch.Generator().manual_seed(bits)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if bits > 1 else (0, 2)
    values = torch.randint(low, high, (N, K), generator=generator)
    values = values if bits > 1 else 2 * values - 1
    step = torch.rand(N, groups, generator=generator) + 0.5
    shift = torch.randn(N, groups, generator=generator) if shifted else None
    columns = torch.randperm(K, generator=generator) if scattered else None
    W = values.double().view(N, groups, -1) * step.bfloat16().double()[..., None]
    W = (W if shift is None else W + shift.double()[..., None]).flatten(1)
    if columns is not None:
        W = torch.empty_like(W).index_copy_(1, columns, W)
    return int_rows.int_rows(values.to(torch.int8), step, shift, columns, bits), W


@pytest.mark.parametrize("m", [1, 3, 17, 65])
@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8])
@pytest.mark.parametrize(
    ("groups", "shifted", "scattered"), [(1, False, False), (1, True, False), (4, True, True)]
)
@pytest.mark.parametrize("hardware", [False, True])
def test_the_product_is_that_of_the_decoded_weights(
    m: int, bits: int, groups: int, shifted: bool, scattered: bool, hardware: bool
) -> None:
    groups = groups if bits <= 4 else 1
    laid_out, W = weights(bits, groups, shifted=shifted, scattered=scattered)
    x = torch.randn(m, K, generator=torch.Generator().manual_seed(m)).bfloat16()
    expected = x.double() @ W.T
    found = int_rows.forward(x, laid_out, hardware).double()
    assert (found - expected).norm() / expected.norm() < 2**-7
    dy = torch.randn(m, N, generator=torch.Generator().manual_seed(m))
    torch.testing.assert_close(
        int_rows.backward(dy, laid_out, K).double(), dy.double() @ W, rtol=1e-4, atol=1e-3
    )


def test_what_torchs_kernels_do_not_take_is_refused() -> None:
    assert int_rows.fits(128, 256, 32, 4) and int_rows.fits(128, 256, 256, 8)
    refused = [(100, 256, 32, 4), (128, 256, 16, 4), (128, 256, 128, 8)]
    assert not any(int_rows.fits(*shape) for shape in refused)
