"""Figures of speed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from workbench.recipe.schema import Engine
from workbench.training import throughput


def test_flops_agree_with_those_that_torch_counts(toy: SimpleNamespace) -> None:
    """6 N per token for the matrices; attention is in the formula in full."""
    from torch.utils.flop_counter import FlopCounterMode

    model, length = toy.make_model(), 32
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, length, dtype=torch.int64)).logits.sum().backward()
    counted = counter.get_total_flops() / (2 * length)
    # The gradient of the first block's input is all that the formula counts and torch may leave out.
    assert throughput.flops_per_token(model, length) == pytest.approx(counted, rel=0.02)


def test_the_first_step_is_left_out(toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 200.0, 202.0, 300.0, 302.0])
    pace = throughput.Pace(toy.make_model(), toy.make_stage(), Engine(), torch.device("cpu"), 1)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    for _ in range(3):
        with pace:
            pass
    assert pace.tokens_per_second == toy.BATCH * toy.LENGTH / 2.0


def test_a_peak_says_where_it_comes_from() -> None:
    peak, source = throughput.peak_flops(torch.device("cpu"), torch.float32)
    assert peak > 0 and source.startswith("measured")
