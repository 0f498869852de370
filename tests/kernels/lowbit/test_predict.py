"""The model of time keeps to its floor, and knows which way things go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lowbit import predict, regimes
from lowbit.regimes import BUCKETS, Regime

H100 = predict.DEVICES["H100"]
SHAPE = (14336, 4096)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("rows", BUCKETS)
def test_no_prediction_beats_the_floor(bits: int, rows: int) -> None:
    regime = regimes.tiles()["any"][bits, rows]
    assert predict.predicted(regime, bits, SHAPE, rows, H100) > predict.floor(bits, SHAPE, rows, 128, H100)


def test_floor_of_the_published_shapes() -> None:
    """4 bits in groups of 128 on 14336 x 4096: one row is bound by bytes, many rows are by operations."""
    assert 1e6 * predict.floor(4, SHAPE, 1, 128, H100) == pytest.approx(10.1, abs=0.05)
    assert 1e6 * predict.floor(4, SHAPE, 4096, 128, H100) == pytest.approx(601, abs=1)


def test_more_work_takes_longer() -> None:
    gemm = Regime("gemm")
    one, many = (predict.seconds(gemm, 4, SHAPE, rows, 128, H100) for rows in (1, 256))
    assert one < many
    assert predict.seconds(gemm, 4, SHAPE, 1, 128, H100) < predict.seconds(gemm, 8, SHAPE, 1, 128, H100)


def test_the_table_is_what_the_model_says(tmp_path: Path) -> None:
    predict.write_table(tmp_path / "regimes.json")
    written = json.loads((tmp_path / "regimes.json").read_text())
    assert written["any"] == json.loads(regimes.TABLE.read_text())["any"]
