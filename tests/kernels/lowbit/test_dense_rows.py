"""A weight that is kept decoded gives the products of its numbers, in whichever dtype they are multiplied."""

from __future__ import annotations

import pytest
import torch
from lowbit import dense_rows

N, K = 40, 64


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hardware", [True, False])
@pytest.mark.parametrize("m", [1, dense_rows.MOST_ROWS, dense_rows.MOST_ROWS + 1])
def test_products_of_every_dtype(
    kept: torch.dtype, dtype: torch.dtype, hardware: bool, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_rows, "hardware", lambda: hardware)
    monkeypatch.setattr(dense_rows, "CHUNK_WEIGHTS", 7 * K)  # several chunks, and a smaller one at the end
    draw = torch.Generator().manual_seed(m)
    weight = torch.randn(N, K, generator=draw).to(kept)
    x, dy = torch.randn(m, K, generator=draw).to(dtype), torch.randn(m, N, generator=draw).to(dtype)
    for found, expected in (
        (dense_rows.forward(x, weight), x.double() @ weight.double().T),
        (dense_rows.backward(dy, weight), dy.double() @ weight.double()),
    ):
        assert found.dtype == dtype
        # float32 sums of 64 terms, then the rounding of the result
        assert (found - expected).norm() / expected.norm() < max(torch.finfo(dtype).eps, 1e-6)
