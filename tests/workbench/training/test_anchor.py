"""The pull of an anchor is the gradient of its penalty, wherever the weights lie."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from workbench import data
from workbench.training import Anchor
from workbench.training.anchor import ANCHOR, IMPORTANCE, AnchoredAdamW

STRENGTH = 0.3
LOOSE = {"clip": 1e9}  # clipping knows the gradient of a penalty in the loss, and not that of an anchor


def importance(toy: SimpleNamespace) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {name: torch.rand(p.shape, generator=draw) for name, p in toy.make_model().named_parameters()}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_adds_the_gradient_before_the_update() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
    adamw = AnchoredAdamW([weight], 0.5, lr=0.0)
    theta_0, fisher = torch.tensor([1.0, -1.0]), torch.tensor([2.0, 7.0])
    adamw.state[weight] = {
        "step": torch.tensor(0.0),
        "exp_avg": torch.zeros(2),
        "exp_avg_sq": torch.zeros(2),
        ANCHOR: theta_0,
        IMPORTANCE: fisher,
    }
    weight.grad = torch.tensor([10.0, 20.0])
    adamw.step()
    assert weight.grad.tolist() == [12.0, 20.0]
    assert adamw.take_penalty() == 2.0 and adamw.take_penalty() == 0.0


def test_equals_the_penalty_in_the_loss(toy: SimpleNamespace, tokens: Path, tmp_path: Path) -> None:
    fisher, start = importance(toy), weights(toy.make_model())

    def penalty(model: torch.nn.Module, batch: data.Batch, logits: torch.Tensor) -> torch.Tensor:
        ways = ((p - start[name]).square().mul(fisher[name]).sum() for name, p in model.named_parameters())
        return STRENGTH / 2 * sum(ways, torch.zeros(()))

    in_loss, _ = toy.run(tokens, tmp_path / "loss", stage=LOOSE, penalty=penalty)
    anchored, _ = toy.run(tokens, tmp_path / "anchor", stage=LOOSE, anchor=Anchor(STRENGTH, fisher))
    free, _ = toy.run(tokens, tmp_path / "free", stage=LOOSE)
    penalties = [
        [row["penalty"] for row in toy.rows(tmp_path / name) if "loss" in row] for name in ("loss", "anchor")
    ]
    assert penalties[1][0] == 0.0 and penalties[1][-1] > 0
    assert penalties[1] == pytest.approx(penalties[0], rel=1e-4)
    moved = 0.0
    for name, weight in weights(anchored).items():
        torch.testing.assert_close(weight, weights(in_loss)[name], rtol=1e-3, atol=3e-5)
        moved = max(moved, (weight - weights(free)[name]).abs().max().item())
    assert moved > 1e-3  # without the pull it would have gone elsewhere


@pytest.mark.parametrize(
    "engine",
    [{"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3}, {"zero_stage": 2, "offload": "optimizer"}],
    ids=str,
)
def test_partitions_change_no_number(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, engine: dict[str, Any]
) -> None:
    fisher, frozen = importance(toy), ("model.layers.0.",)
    expected, plain = toy.run(tokens, tmp_path / "plain", frozen=frozen, anchor=Anchor(STRENGTH, fisher))
    model, result = toy.run(
        tokens, tmp_path / "cut", engine=engine, frozen=frozen, anchor=Anchor(STRENGTH, fisher)
    )
    for key in ("loss", "penalty"):
        one, other = (
            [row[key] for row in toy.rows(tmp_path / name) if key in row] for name in ("plain", "cut")
        )
        assert one == pytest.approx(other, rel=1e-4)
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(model)[name], weight, rtol=1e-4, atol=2e-5)
    # Both moments, theta_0 and F in float32, and little padding.
    assert plain.optimizer_bytes == pytest.approx(result.optimizer_bytes, rel=0.01)
    assert plain.optimizer_bytes == pytest.approx(4 * 4 * plain.trainable_parameters, rel=0.01)


@pytest.mark.parametrize("engine", [{}, {"zero_stage": 3}, {"precision": "bfloat16"}], ids=str)
def test_the_anchor_is_where_training_began_also_after_a_stop(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, engine: dict[str, Any]
) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole, _ = toy.run(tokens, tmp_path / "whole", engine=engine, anchor=Anchor(STRENGTH))
    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path / "halves", engine=engine, anchor=Anchor(STRENGTH), at_step=stop)
    halves, _ = toy.run(tokens, tmp_path / "halves", engine=engine, anchor=Anchor(STRENGTH))
    assert all(torch.equal(weight, weights(whole)[name]) for name, weight in weights(halves).items())
    penalties = [row["penalty"] for row in toy.rows(tmp_path / "halves") if "penalty" in row]
    assert penalties[0] == 0.0 and min(penalties[1:]) > 0
