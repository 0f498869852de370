"""Distillation measures the distance to the start, on the rows that it is asked about."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from workbench import data
from workbench.data import Batch, Window
from workbench.recipe.methods import Distill
from workbench.retention import distill


@pytest.fixture
def batch() -> Batch:
    draw = np.random.default_rng(3)
    documents = [np.repeat([0, 1], [5, 8]).astype(np.int32), np.zeros(13, np.int32)]
    windows = [Window(draw.integers(3, 320, 13), part) for part in documents]
    return data.pack(windows, ["old", "new"], 12)


@pytest.fixture
def pair(tiny_model_folder: Path) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """A student and the teacher that it has moved away from."""
    teacher = LlamaForCausalLM.from_pretrained(tiny_model_folder)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
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


def test_nothing_at_the_start(pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch) -> None:
    teacher = pair[1]
    penalty = distill.penalty(copy.deepcopy(teacher), Distill(), ())
    value = penalty(teacher, batch, logits(teacher, batch))
    assert abs(value.item()) < 1e-6
    value.backward()
    largest = max(p.grad.abs().max().item() for p in teacher.parameters() if p.grad is not None)
    assert largest < 1e-6


@pytest.mark.parametrize(("text", "rows"), [("new", [0, 1]), ("replay", [0])])
def test_is_the_divergence_from_the_start(
    pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch, text: str, rows: list[int]
) -> None:
    student, teacher = pair
    settings = Distill.model_validate({"beta": 0.5, "text": text})
    value = distill.penalty(teacher, settings, {"old"})(student, batch, logits(student, batch))
    p, q = (logits(model, batch).double().softmax(-1) for model in (teacher, student))
    divergence = (p * (p / q).log()).sum(-1)  # [B, L]
    targets = batch.labels != data.NO_TARGET
    expected = 0.5 * divergence[rows][targets[rows]].sum() / targets.sum()
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=0)
    value.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_rows_of_new_text_do_not_count_on_replay(
    pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch
) -> None:
    student, teacher = pair
    penalty = distill.penalty(teacher, Distill(text="replay"), {"elsewhere"})
    assert penalty(student, batch, logits(student, batch)).item() == 0.0


def test_without_targets_it_is_zero(pair: tuple[LlamaForCausalLM, LlamaForCausalLM], batch: Batch) -> None:
    student, teacher = pair
    batch.labels.fill_(data.NO_TARGET)
    assert distill.penalty(teacher, Distill(), ())(student, batch, logits(student, batch)).item() == 0.0
