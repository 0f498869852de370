"""Deviation-aware distillation weighs tokens by the teacher's entropy, and rests where the teacher is."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from workbench import data
from workbench.data import Batch, Window
from workbench.recipe.quantization import DbLlm
from workbench.retention import deviation


@pytest.fixture
def batch() -> Batch:
    draw = np.random.default_rng(3)
    documents = [np.repeat([0, 1], [5, 8]).astype(np.int32), np.zeros(13, np.int32)]
    return data.pack([Window(draw.integers(3, 320, 13), part) for part in documents], ["a", "b"], 12)


@pytest.fixture
def pair(tiny_model_folder: Path) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """A student and its teacher, whose head is sharpened so that entropies differ."""
    teacher = LlamaForCausalLM.from_pretrained(tiny_model_folder)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        teacher.lm_head.weight.mul_(20)
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return student, teacher


def logits(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    output: Tensor = model(
        input_ids=batch.tokens,
        position_ids=batch.positions,
        attention_mask=data.attention_mask(batch.documents),
    ).logits
    return output


@pytest.mark.parametrize("gamma", [0.0, 0.1, 2.0])
def test_is_the_weighted_mean_over_target_tokens(
    pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch, gamma: float
) -> None:
    student, teacher = pair
    settings = DbLlm(gamma=gamma, distillation=0.5)
    found = deviation.penalty(teacher, settings)(student, batch, logits(student, batch))
    expected, count = 0.0, 0
    p, q = (logits(model, batch).detach().double().softmax(-1) for model in (teacher, student))
    for b, place in (batch.labels != data.NO_TARGET).nonzero().tolist():
        entropy = -(p[b, place] * p[b, place].log()).sum()
        weight = (entropy / math.log(320)) ** gamma
        expected += float(weight * -(p[b, place] * q[b, place].log()).sum())
        count += 1
    assert found.item() == pytest.approx(0.5 * expected / count, rel=1e-4)


def test_only_the_student_is_taught(pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch) -> None:
    student, teacher = pair
    deviation.penalty(teacher, DbLlm())(student, batch, logits(student, batch)).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_the_gradient_rests_where_the_student_is_the_teacher(
    pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch
) -> None:
    student = pair[1]
    penalty = deviation.penalty(copy.deepcopy(student), DbLlm())
    penalty(student, batch, logits(student, batch)).backward()
    largest = max(p.grad.abs().max().item() for p in student.parameters() if p.grad is not None)
    assert largest < 1e-5


def test_certain_tokens_count_less(pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch) -> None:
    """Entropies are at most log V, so that a larger exponent can only take away."""
    student, teacher = pair
    output = logits(student, batch)
    values = [
        deviation.penalty(teacher, DbLlm(gamma=gamma))(student, batch, output).item() for gamma in (0, 1, 3)
    ]
    assert values[0] > values[1] > values[2] > 0


def test_a_teacher_without_doubt_is_no_trouble() -> None:
    taught = torch.tensor([[1e4, 0.0, -torch.inf]])
    for gamma, expected in ((0.0, math.log(3)), (0.1, 0.0)):
        assert deviation._deviation(torch.zeros(1, 3), taught, gamma).item() == pytest.approx(expected)


def test_without_targets_it_is_zero(pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch) -> None:
    student, teacher = pair
    batch.labels.fill_(data.NO_TARGET)
    assert deviation.penalty(teacher, DbLlm())(student, batch, logits(student, batch)).item() == 0.0
