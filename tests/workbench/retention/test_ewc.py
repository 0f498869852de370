"""The Fisher information against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from workbench import data
from workbench.data import Batch, Window
from workbench.recipe.methods import Ewc
from workbench.retention import ewc


def rows(count: int, length: int = 12) -> Batch:
    draw = np.random.default_rng(3)
    windows = []
    for index in range(count):
        documents = np.repeat([0, 1], [4 + index, length - 3 - index]).astype(np.int32)
        windows.append(Window(draw.integers(3, 320, length + 1), documents))
    return data.pack(windows, ["old"] * count, length)


def test_is_the_mean_over_sequences_of_the_squared_gradient(tiny_model_folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
    model.model.embed_tokens.requires_grad_(False)
    model.train()
    batch = rows(3)
    expected = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    for row in range(3):
        model.zero_grad()
        likelihood = torch.zeros(())
        for document in (0, 1):  # each document by itself: a witness for the mask and the positions too
            here = batch.documents[row] == document
            log_p = model(batch.tokens[row][here][None]).logits[0].log_softmax(-1)
            for position, label in zip(log_p, batch.labels[row][here].tolist(), strict=True):
                likelihood = likelihood + (position[label] if label != data.NO_TARGET else 0.0)
        likelihood.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                expected[name] += parameter.grad.square() / 3
    found = ewc.fisher(model, [rows(3)], 3)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == torch.float32 and value.min() >= 0
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)
    assert model.training


def test_does_not_depend_on_how_sequences_are_batched(tiny_model_folder: Path) -> None:
    model, whole = LlamaForCausalLM.from_pretrained(tiny_model_folder), rows(4)
    parts = [
        Batch(
            *(
                getattr(whole, name)[i : i + 2]
                for name in ("tokens", "labels", "positions", "documents", "sources")
            )
        )
        for i in (0, 2)
    ]
    one, two = ewc.fisher(model, [whole], 4), ewc.fisher(model, parts, 4)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_anchor_carries_strength_and_importance() -> None:
    importance = {"a": torch.ones(2)}
    anchor = ewc.anchor(importance, Ewc(strength=3.0, mixture={"old": 1.0}))
    assert anchor.strength == pytest.approx(3.0) and anchor.importance is importance
