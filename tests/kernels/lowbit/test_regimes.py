"""The table serves every product, and splits fill a device without making steps too few."""

from __future__ import annotations

import pytest
import torch
from lowbit import regimes
from lowbit.regimes import BUCKETS, Regime

CPU = torch.device("cpu")


def test_every_width_and_size_is_in_the_table() -> None:
    for table in regimes.tiles().values():
        assert set(table) == {(bits, rows) for bits in range(1, 9) for rows in BUCKETS}


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("rows", [1, 3, 17, 500, 513, 5000])
def test_a_regime_for_every_product(bits: int, rows: int) -> None:
    regime = regimes.choose(bits, (4096, 4096), rows, CPU)
    assert regime.kernel == "dequantize" or regime.splits >= 1
    if rows > BUCKETS[-1]:
        assert regime.kernel == "dequantize"


def test_splits_fill_the_device_and_leave_four_steps() -> None:
    gemm = Regime("gemm", block_n=64, block_m=16)
    assert regimes.split(gemm, (1024, 4096), 1, 132).splits == 8  # 32 steps
    assert regimes.split(gemm, (4096, 14336), 1, 132).splits == 4  # 64 tiles, 264 programs wanted
    assert regimes.split(gemm, (128256, 4096), 1, 132).splits == 1
    assert regimes.split(gemm, (64, 64), 1, 132).splits == 1


def test_rows_go_to_the_next_bucket() -> None:
    assert [regimes.bucket(rows) for rows in (1, 3, 16, 17, 512)] == [1, 4, 16, 32, 512]
