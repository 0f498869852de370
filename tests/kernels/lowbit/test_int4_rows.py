"""Products in bfloat16 by torch's 4-bit kernel: those of the decoded weights, for groups of many sizes."""

from __future__ import annotations

import pytest
import torch
from lowbit import int4_rows

N, K = 128, 512


@pytest.mark.parametrize("m", [1, 3, 17])
@pytest.mark.parametrize("group_size", [32, 96, 128, 512])
@pytest.mark.parametrize("shifted", [True, False])
def test_the_product_is_that_of_the_decoded_weights(m: int, group_size: int, shifted: bool) -> None:
    generator = torch.Generator().manual_seed(m)
    groups = K // group_size
    k = groups * group_size
    values = torch.randint(-8, 8, (N, k), generator=generator)
    step = (torch.rand(N, groups, generator=generator) + 0.5).bfloat16()
    shift = torch.randn(groups, N, generator=generator) if shifted else torch.empty(0, 0)
    W = values.double() * step.double().repeat_interleave(group_size, 1)
    W = W + shift.T.double().repeat_interleave(group_size, 1) if shifted else W
    assert int4_rows.fits(N, group_size)

    x = torch.randn(m, k, generator=generator).bfloat16()
    found = int4_rows.forward(x, *int4_rows.int4_rows(values, step), shift).double()
    expected = x.double() @ W.T
    assert (found - expected).norm() / expected.norm() < 2**-7


def test_what_the_kernel_does_not_take_is_refused() -> None:
    assert not int4_rows.fits(100, 32) and not int4_rows.fits(128, 16)
