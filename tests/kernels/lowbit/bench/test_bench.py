"""The bench times what agrees with the reference and nothing else, and its files say all that it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lowbit.bench import Plan, contestants, peers, plan_for, report, run
from lowbit.bench.floor import Limits, effective_bits, floor_seconds
from lowbit.bench.timing import Times, measure
from torch import Tensor

CPU = torch.device("cpu")
PLAN = Plan((("toy q", (128, 256)), ("toy down", (64, 128))), (3, 4), (1, 20), (20,), 128, 0.0)


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    """Limits of a made-up device: measuring those of this one takes seconds."""
    made_up = Limits(1e9, 1e12, "float32")
    monkeypatch.setattr("lowbit.bench.protocol.measure_limits", lambda device: made_up)
    return made_up


def cells(found: dict[str, Any], **wanted: object) -> list[dict[str, Any]]:
    return [cell for cell in found["cells"] if all(cell[key] == value for key, value in wanted.items())]


def test_every_cell_has_a_time_beside_bf16(tmp_path: Path) -> None:
    done: list[int] = []
    found = run(PLAN, CPU, lambda: done.append(1))
    assert len(done) == PLAN.cells == 4
    for layer, _ in PLAN.layers:
        for m in PLAN.rows:
            (bf16,) = cells(found, layer=layer, m=m, contestant="bf16")
            assert bf16["ratio_to_bf16"] == 1 and bf16["b_eff"] == 16
            for bits in PLAN.bits:
                (own,) = cells(found, layer=layer, m=m, contestant="ours", bits=bits)
                assert own["p10"] <= own["median"] <= own["p90"] and own["samples"] >= 3
                assert own["ratio_to_bf16"] == pytest.approx(bf16["median"] / own["median"])
                assert own["b_eff"] == bits + 0.125
            assert cells(found, layer=layer, m=m, contestant="ours nf4", bits=4)
    assert {entry["contestant"] for entry in found["failed"]} <= set(peers.PEERS)

    files = report.write(found, tmp_path)
    assert [file.suffix for file in files] == [".json", ".md", ".png", ".svg"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert json.loads(files[0].read_text()) == found
    assert files[1].read_text().count("| toy q | 128 x 256 |") == len(cells(found, layer="toy q"))
    assert found["floor"] in files[1].read_text()
    assert files[2].read_bytes().startswith(b"\x89PNG") and b"<svg" in files[3].read_bytes()


def test_gradients_are_measured_beside_those_of_bf16() -> None:
    found = run(PLAN, CPU, lambda: None)
    assert {cell["m"] for cell in found["cells"] if cell["contestant"].endswith(" dx")} == {20}
    for layer, _ in PLAN.layers:
        (bf16,) = cells(found, layer=layer, contestant="bf16 dx")
        for bits in PLAN.bits:
            (own,) = cells(found, layer=layer, contestant="ours dx", bits=bits)
            assert own["ratio_to_bf16"] == pytest.approx(bf16["median"] / own["median"])


def test_contestants_multiply_by_the_same_weight() -> None:
    shape, x, dy = (64, 256), torch.randn(3, 256).bfloat16(), torch.randn(3, 64).bfloat16()
    nf4, affine = contestants.random_nf4(shape, 64, CPU), contestants.random_weight(shape, 4, 64, CPU)
    for make in (contestants.ours_codebook, peers.bitsandbytes):
        product = make(nf4)
        assert product is not None and make(affine) is None
        expected = x.float() @ nf4.dense().T
        assert (product(x) - expected).norm() < 0.01 * expected.norm()
    gradient = contestants.ours_gradient(affine)
    assert gradient is not None and contestants.ours_gradient(nf4) is None
    expected = dy.float() @ affine.dense()
    assert (gradient(dy) - expected).norm() < 0.01 * expected.norm()


def test_a_wrong_product_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    right = contestants.ours

    def wrong_at_three_bits(weight: contestants.Quantized) -> contestants.Product | None:
        product = right(weight)

        def broken(x: Tensor) -> Tensor:
            assert product is not None
            y = product(x)
            return y * 1.05 if weight.bits == 3 else y

        return None if product is None else broken

    monkeypatch.setitem(contestants.OURS, "ours", wrong_at_three_bits)
    found = run(PLAN, CPU, lambda: None)
    assert not cells(found, contestant="ours", bits=3) and cells(found, contestant="ours", bits=4)
    red = [entry for entry in found["failed"] if entry["contestant"] == "ours"]
    assert len(red) == PLAN.cells
    assert "3 bits do not agree with the reference" in report.table(found)


def test_a_peer_that_refuses_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weight: contestants.Quantized) -> None:
        raise RuntimeError("knows no such weight")

    monkeypatch.setitem(peers.PEERS, "torch int4", refuse)
    found = run(PLAN, CPU, lambda: None)
    assert not cells(found, contestant="torch int4")
    assert "- torch int4: RuntimeError: knows no such weight" in report.table(found)


def test_floor_is_the_greater_of_traffic_and_arithmetic(limits: Limits) -> None:
    n, k = 1024, 4096
    traffic = n * k * 4.125 / 8 + 2 * (n + k)
    assert effective_bits(4, 128) == 4.125
    assert floor_seconds(limits, 1, (n, k), 4.125) == pytest.approx(traffic / 1e9)
    assert floor_seconds(Limits(1e12, 1e9, "float32"), 8, (n, k), 4.125) == pytest.approx(16 * n * k / 1e9)


def test_contestants_take_turns_over_their_copies() -> None:
    order: list[str] = []
    calls = {name: [lambda n=name, i=i: order.append(f"{n}{i}") for i in range(2)] for name in "ab"}
    times = measure(calls, CPU, 0.0)
    for name in "ab":  # one to see how long it takes, then pairs: one that is not timed, one that is
        own = [call for call in order if call[0] == name]
        assert own[1:] == [f"{name}{i % 2}" for i in range(1, len(own))]
    turns = order[-12:]
    pairs = [turns[i : i + 2] for i in range(0, 12, 2)]
    assert all(one[0] == other[0] and one != other for one, other in pairs)
    assert all({a[0][0], b[0][0]} == {"a", "b"} for a, b in zip(pairs[::2], pairs[1::2], strict=True))
    assert {found.samples for found in times.values()} == {3}
    assert Times.of([3e-6, 1e-6, 2e-6]).median == pytest.approx(2)


def test_plans() -> None:
    assert plan_for(CPU).bits == (4, 8) and len(plan_for(CPU).rows) == 11
    everything = plan_for(torch.device("cuda"))
    assert everything.bits == tuple(range(1, 9)) and len(everything.layers) == 24
    assert plan_for(CPU, ["70b"], [2]).layers[-1] == ("70b down", (8192, 28672))
    with pytest.raises(ValueError, match="no shapes of 9b; there are 1b, 3b, 8b, 70b"):
        plan_for(CPU, ["9b"])
    with pytest.raises(ValueError, match="bits 9 are not supported"):
        plan_for(CPU, bits=[9])
