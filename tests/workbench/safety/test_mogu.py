"""Losses of MoGU: zero where routers tell right, flat beyond a ceiling, and only one part is trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.data import Batch
from workbench.errors import DataError
from workbench.models.mogu import MoguModel, add_responders, projections
from workbench.models.routing import Routing
from workbench.safety.derta import answered, collate
from workbench.safety.mogu import BALANCE, balance, balance_loss, ratio_loss, train_only
from workbench.training.objective import Objective, cross_entropies

MALICIOUS = answered((5, 6, 7), (20, 21, 22, 3))
BENIGN = answered((8, 9), (30, 31, 3))


def model() -> MoguModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=41,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.1,
    )
    return add_responders(LlamaForCausalLM(config), Routing(rank=4, router_width=8), 1)


def batch() -> Batch:
    return collate([[MALICIOUS], [BENIGN]], ["bad", "good"], 8)


def moved(model: MoguModel, loss: Tensor) -> set[str]:
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize("part", ["unwilling", "glad"])
def test_a_responder_is_trained_alone(part: str) -> None:
    made = model()
    train_only(made, part)  # type: ignore[arg-type]
    names = moved(made.train(), Objective(made, None, autocast=False)(batch())[0].sum())
    # A waits for B to leave 0.
    assert names == {f"model.layers.{i}.self_attn.o_proj.{part}.B" for i in (0, 1)}
    free = {name for name, p in made.named_parameters() if p.requires_grad}
    assert free == {f"model.layers.{i}.self_attn.o_proj.{part}.{p}" for i in (0, 1) for p in "AB"}


def test_routers_are_trained_alone_and_learn_who_asks() -> None:
    made = model()
    train_only(made, "routers")
    free = {name for name, p in made.named_parameters() if p.requires_grad}
    assert len(free) == 2 * 2 * 4 and all("_router." in name for name in free)
    objective = Objective(made.train(), balance({"bad"}, {"good"}), autocast=False)
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(60):
        nats, penalty = objective(batch())
        losses.append(float(penalty.detach()))
        (penalty + 0 * nats.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] == pytest.approx(BALANCE * 0.5, rel=0.05)  # a and b near one half
    assert losses[-1] < 0.2 * losses[0]


def test_the_penalty_takes_the_shares_and_evaluation_keeps_none() -> None:
    made = model()
    train_only(made, "routers")
    Objective(made.train(), balance({"bad"}, {"good"}), autocast=False)(batch())
    assert all(projection.shares is None for projection in projections(made))
    Objective(made.eval(), None, autocast=False)(batch())
    assert all(projection.shares is None for projection in projections(made))


def test_the_balance_loss_is_zero_where_the_routers_tell_right_and_2_where_they_are_wrong() -> None:
    malicious, counted = torch.tensor([True, False]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    right = torch.tensor([[1.0] * 3, [0.0] * 3])
    right[~counted] = 7.0  # what stands on padding does not count
    assert float(balance_loss([(right, 1 - right)] * 2, malicious, counted)) == 0
    wrong = torch.tensor([[0.0] * 3, [1.0] * 3])
    assert float(balance_loss([(wrong, 1 - wrong)] * 2, malicious, counted)) == 2
    half = torch.full((2, 3), 0.5)
    assert float(balance_loss([(half, half)], malicious, counted)) == 0.5


def test_padding_in_the_batch_does_not_count() -> None:
    values = []
    for length in (8, 20):
        made = model()
        train_only(made, "routers")
        padded = collate([[MALICIOUS], [BENIGN]], ["bad", "good"], length)
        penalty = Objective(made.train(), balance({"bad"}, {"good"}), autocast=False)(padded)[1]
        values.append(float(penalty.detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_sources_must_be_told_apart() -> None:
    with pytest.raises(DataError, match="source bad is both malicious and benign"):
        balance({"bad"}, {"bad"})
    made = model()
    train_only(made, "routers")
    with pytest.raises(DataError, match="row 1 of a batch is from good, which is neither"):
        Objective(made.train(), balance({"bad"}, set()), autocast=False)(batch())


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


def test_descending_the_ratio_teaches_one_answer_and_not_the_other() -> None:
    made = model()
    train_only(made, "glad")
    pair = collate([[MALICIOUS], [answered((5, 6, 7), (33, 34, 3))]], ["bad", "bad"], 8)
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    history = []
    for _ in range(40):
        mask = torch.tril(torch.ones(8, 8, dtype=torch.bool))
        logits = made(input_ids=pair.tokens, attention_mask=mask.expand(2, 1, 8, 8), use_cache=False).logits
        nats = cross_entropies(logits.flatten(0, 1), pair.labels.flatten()).view(2, 8).sum(1)
        wanted, opposed = nats / (pair.labels >= 0).sum(1)
        history.append((wanted.item(), opposed.item()))
        ratio_loss(wanted[None], opposed[None], 2 * math.log(41)).backward()
        optimizer.step()
        optimizer.zero_grad()
    (before, other_before), (after, other_after) = history[0], history[-1]
    assert after < before - 0.1
    assert other_after - after > other_before - before + 0.3
