"""When a probe is made, and what happens under the floor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import RecipeError
from workbench.training import probe_steps

# Updates -> score: the floor of 0.8 x 0.5 = 0.4 breaks at step 4, and 2 is the last sound probe.
SCORES = {0: 0.5, 1: 0.45, 2: 0.41, 3: 0.6, 4: 0.39, 5: 0.6, 6: 0.6}


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_probes_are_dense_early_and_frame_the_training(steps: int, every: int) -> None:
    found = probe_steps(steps, every)
    assert found == sorted(set(found)) and found[0] == 0 and found[-1] == steps
    for percent in (1, 2, 4, 8):
        assert any(0 <= step - steps * percent / 100 < 1 for step in found)
    assert set(range(0, steps, every)) <= set(found)
    assert len(found) <= 6 + (steps - 1) // every


def test_early_probes_of_a_training_of_1000_steps() -> None:
    assert probe_steps(1000, 400) == [0, 10, 20, 40, 80, 400, 800, 1000]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


class Scripted:
    """A probe with known scores, which also keeps the weights that it saw."""

    def __init__(self, steps: list[int], die_at: int | None = None) -> None:
        self.left, self.seen, self.die_at = list(steps), dict[int, dict[str, torch.Tensor]](), die_at

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        step = self.left.pop(0)
        self.seen[step] = weights(model)
        if step == self.die_at:
            raise KeyboardInterrupt
        return {"old.acc": SCORES[step], "new.acc": 0.0}


def settings(then: str, **more: Any) -> dict[str, Any]:
    floor = {"metric": "old.acc", "share": 0.8, "then": then}
    return {"floor": floor, "probe_every": 2, "checkpoint_every": 1, **more}


PROBED = [0, 1, 2, 4, 6]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
@pytest.mark.parametrize(("then", "kept"), [("stop", 4), ("roll-back", 2)])
def test_training_ends_under_the_floor(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, then: str, kept: int, zero_stage: int
) -> None:
    engine = {"zero_stage": 0}
    whole = Scripted(PROBED)
    toy.run(tokens, tmp_path / "whole", stage={"probe_every": 2}, engine=engine, probe=whole)
    probe, engine = Scripted(PROBED), {"zero_stage": zero_stage}
    model, result = toy.run(tokens, tmp_path / "out", stage=settings(then), engine=engine, probe=probe)
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, whole.seen[kept][name], rtol=1e-4, atol=2e-5)
    assert result.stopped is not None
    for part in (
        "step 4 of 6",
        "old.acc fell to 0.39",
        "0.4 (0.8 of 0.5",
        f"weights of step {kept} were kept",
    ):
        assert part in result.stopped
    assert (result.steps, result.tokens) == (4, 4 * toy.BATCH * toy.LENGTH)
    assert toy.rows(tmp_path / "out")[-1]["step"] == 4


@pytest.mark.parametrize("then", ["stop", "roll-back"])
@pytest.mark.parametrize(("die_at", "again"), [(2, [2, 4]), (4, [4])])
def test_a_resumed_try_ends_alike(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, then: str, die_at: int, again: list[int]
) -> None:
    """Dying at step 4 leaves the checkpoint of step 3: the start value and the sound step are from before."""
    model, result = toy.run(tokens, tmp_path / "whole", stage=settings(then), probe=Scripted(PROBED))
    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path / "out", stage=settings(then), probe=Scripted(PROBED, die_at))
    resumed, ended = toy.run(tokens, tmp_path / "out", stage=settings(then), probe=Scripted(again))
    assert ended.stopped == result.stopped and ended.steps == result.steps
    assert all(torch.equal(weight, weights(model)[name]) for name, weight in weights(resumed).items())
    # Killed after the stop and before the caller has saved: once more, and the same.
    third, ended = toy.run(tokens, tmp_path / "out", stage=settings(then), probe=Scripted([4]))
    assert ended.stopped == result.stopped
    assert all(torch.equal(weight, weights(model)[name]) for name, weight in weights(third).items())


def test_rolls_back_to_the_start(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORES, 1, 0.1)
    model, result = toy.run(tokens, tmp_path, stage=settings("roll-back"), probe=Scripted(PROBED))
    assert result.stopped and "step 0 were kept" in result.stopped
    before = weights(toy.make_model())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())


def test_above_the_floor_nothing_changes(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORES, 4, 0.4)
    _, result = toy.run(tokens, tmp_path, stage=settings("roll-back"), probe=Scripted(PROBED))
    assert result.stopped is None and result.steps == 6
    assert toy.losses(tmp_path) == toy.losses(plain)


def test_an_unknown_metric_is_refused_before_any_update(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path
) -> None:
    floor = {"metric": "old.f1", "share": 0.8}
    with pytest.raises(RecipeError, match=r"old\.f1 is no score .* new\.acc, old\.acc"):
        toy.run(tokens, tmp_path, stage=settings("stop", floor=floor), probe=Scripted(PROBED))
    assert not toy.losses(tmp_path)


def test_a_floor_needs_something_to_fall(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    floor = {"metric": "new.acc", "share": 0.8}
    with pytest.raises(RecipeError, match="a score above 0"):
        toy.run(tokens, tmp_path, stage=settings("stop", floor=floor), probe=Scripted(PROBED))
    with pytest.raises(RecipeError, match="this recipe has none"):
        toy.run(tokens, tmp_path, stage=settings("stop"), probe=None)
