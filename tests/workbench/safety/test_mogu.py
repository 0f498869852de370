"""Losses of MoGU: zero where routers tell right, flat beyond a ceiling; and each part is trained alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from workbench.data import NO_TARGET
from workbench.models.mogu import MoguModel, add_responders, projections
from workbench.models.routing import Routing
from workbench.recipe.safety import Mogu
from workbench.safety import trainer
from workbench.safety.mogu import balance_loss, collate, ratio_loss, teach, train_only
from workbench.training import log

PARTS = ("glad", "unwilling", "routers")


@pytest.fixture
def routed(tiny: Callable[[], LlamaForCausalLM]) -> Callable[[], MoguModel]:
    return lambda: add_responders(tiny(), Routing(rank=4, router_width=8), 1)


def trained(model: MoguModel, part: str) -> dict[str, torch.Tensor]:
    place = "_router." if part == "routers" else f".{part}."
    return {name: each.detach().clone() for name, each in model.named_parameters() if place in name}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_trained_alone(routed: Callable[[], MoguModel], part: Any) -> None:
    model = routed()
    train_only(model, part)
    free = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert free == set(trained(model, part)) and free


def test_a_course_teaches_the_responders_opposite_answers_and_the_routers_who_asks(
    course: Callable[..., Any], routed: Callable[[], MoguModel], tmp_path: Path
) -> None:
    model, base = routed(), {name: each.clone() for name, each in routed().state_dict().items()}
    outcomes = teach(model, course(tmp_path, steps=24, rate=5e-2), Mogu(router_learning_rate=5e-2))
    assert list(outcomes) == list(PARTS)
    assert [outcome.trainable_parameters for outcome in outcomes.values()] == [
        sum(each.numel() for each in trained(model, part).values()) for part in PARTS
    ]
    rows = log.read(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 25))
    glad, unwilling, routers = ([row for row in rows if row["part"] == part] for part in PARTS)
    assert [len(each) for each in (glad, unwilling, routers)] == [8, 8, 8]
    assert glad[0]["loss"] == pytest.approx(1, abs=0.02)  # a model without a mind of its own
    assert glad[-1]["affirming"] < glad[-1]["rejecting"] - 0.03
    assert unwilling[-1]["rejecting"] < unwilling[-1]["affirming"] - 0.03
    assert routers[0]["balance"] == pytest.approx(0.5, rel=0.1)  # a and b near one half
    assert routers[-1]["balance"] < routers[0]["balance"] - 2e-3
    added = [set(trained(model, part)) for part in PARTS]
    for name, each in model.state_dict().items():
        assert torch.equal(each, base[name]) or any(name in names for names in added)
    assert model.steering.responder == "routed" and not model.steering.keep


def test_a_course_that_was_stopped_between_its_parts_goes_on(
    course: Callable[..., Any],
    routed: Callable[[], MoguModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, model = routed(), routed()
    teach(whole, course(tmp_path / "whole", steps=6), Mogu())
    plain = trainer.MetricsLog.write

    def stop(self: Any, **row: Any) -> None:
        if row["step"] == 4:
            raise KeyboardInterrupt
        plain(self, **row)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.MetricsLog, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            teach(model, course(tmp_path / "stopped", steps=6), Mogu())
    again = routed()
    teach(again, course(tmp_path / "stopped", steps=6), Mogu())
    other = whole.state_dict()
    assert all(torch.equal(each, other[name]) for name, each in again.state_dict().items())
    logs = [log.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


def test_a_batch_holds_the_right_answers_first_and_asks_for_answers_alone() -> None:
    rows = [
        {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5], "malicious": True},
        {"prompt_ids": [6], "chosen_ids": [7, 8], "rejected_ids": [9], "malicious": False},
    ]
    batch, none = collate(rows), NO_TARGET
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0], [6, 7, 8, 0], [1, 2, 4, 5], [6, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [
        [none, none, 3, none],
        [none, 7, 8, none],
        [none, none, 4, 5],
        [none, 9, none, none],
    ]
    assert batch["malicious"].tolist() == [True, False]


def test_evaluation_keeps_no_shares(routed: Callable[[], MoguModel]) -> None:
    model = routed()
    train_only(model, "routers")
    model.eval()(torch.tensor([[5, 6, 7]]))
    assert all(projection.shares is None for projection in projections(model))


def test_the_balance_loss_is_zero_where_the_routers_tell_right_and_2_where_they_are_wrong() -> None:
    malicious, counted = torch.tensor([True, False]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    right = torch.tensor([[1.0] * 3, [0.0] * 3])
    right[~counted] = 7.0  # what stands on padding does not count
    assert float(balance_loss([(right, 1 - right)] * 2, malicious, counted)) == 0
    wrong = torch.tensor([[0.0] * 3, [1.0] * 3])
    assert float(balance_loss([(wrong, 1 - wrong)] * 2, malicious, counted)) == 2
    half = torch.full((2, 3), 0.5)
    assert float(balance_loss([(half, half)], malicious, counted)) == 0.5


def test_the_ratio_counts_the_opposed_answer_up_to_the_ceiling() -> None:
    ceiling = math.log(41)
    wanted = torch.tensor([1.0, 2.0], requires_grad=True)
    opposed = torch.tensor([2.0, 100.0], requires_grad=True)
    loss = ratio_loss(wanted, opposed, ceiling)
    assert float(loss.detach()) == pytest.approx((1 / 2 + 2 / ceiling) / 2)
    loss.backward()
    assert opposed.grad is not None and wanted.grad is not None
    assert opposed.grad[0] < 0 and opposed.grad[1] == 0 and bool((wanted.grad > 0).all())
    assert math.isfinite(float(ratio_loss(torch.ones(1), torch.zeros(1), ceiling)))
