"""Rows of bytes hold the weights they were made of, whatever the bytes, groups and order of columns."""

from __future__ import annotations

import pytest
import torch
from lowbit.byte_rows import BLOCK, ByteRows, backward, byte_rows, forward


@pytest.mark.parametrize("groups", [1, 4, 12])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("scattered", [True, False])
@pytest.mark.parametrize("out_features", [1, BLOCK, 2 * BLOCK + 5])
def test_product_with_the_formula(groups: int, shifted: bool, scattered: bool, out_features: int) -> None:
    k, bias = 48, -128.0
    codes = torch.randint(256, (out_features, k), dtype=torch.uint8)
    step = torch.rand(out_features, groups)
    shift = torch.randn(out_features, groups) if shifted else None
    columns = torch.randperm(k) if scattered else None
    weight = byte_rows(codes, bias, step, shift, columns)

    ordered = (codes.double() + bias) * step.repeat_interleave(k // groups, 1)
    if shift is not None:
        ordered = ordered + shift.repeat_interleave(k // groups, 1)
    dense = torch.empty_like(ordered)
    dense[:, torch.arange(k) if columns is None else columns] = ordered
    for m in (1, 2, 16, 17):
        x, dy = torch.randn(m, k), torch.randn(m, out_features)
        y, dx = forward(x, weight, out_features), backward(dy, weight, k)
        # float32 sums of 48 terms of up to the greatest weight
        bound = {"rtol": 0.0, "atol": 1e-5 * k * float(dense.abs().max())}
        torch.testing.assert_close(y, (x.double() @ dense.T).float(), **bound)
        torch.testing.assert_close(dx, (dy.double() @ dense).float(), **bound)


def test_many_rows_and_columns_take_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.randint(256, (5 * BLOCK, 64), dtype=torch.uint8)
    weight = byte_rows(codes, 0.0, torch.rand(5 * BLOCK, 2), None, None)
    x = torch.randn(3, 64)
    whole = forward(x, weight, 5 * BLOCK)
    monkeypatch.setattr("lowbit.byte_rows.INDICES", 2 * 3 * 64)  # two blocks a call, and one is left
    assert torch.equal(forward(x, weight, 5 * BLOCK), whole)


def test_bytes_a_weight() -> None:
    codes = torch.zeros(10 * BLOCK, 256, dtype=torch.uint8)
    weight = byte_rows(codes, 0.0, torch.ones(10 * BLOCK, 2), None, None)
    assert isinstance(weight, ByteRows)
    assert 8 * weight.rows.nbytes / codes.numel() == 8 * (BLOCK + 8) / BLOCK
