"""Opener mass equals the sum of probabilities one by one, and knows nothing of batches and padding."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from workbench.errors import DataError
from workbench.safety.openers import opener_mass

PROMPTS = [(5, 9, 17, 40), (8, 3), (60, 61, 62, 63, 64, 65)]
ANSWERS = [tuple(range(100, 170)), tuple(range(70, 82)), (33, 34, 35)]
OPENERS = (11, 12, 300)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> LlamaForCausalLM:
    found: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(tiny_model_folder).eval()
    return found


def alone(model: LlamaForCausalLM, forced: tuple[int, ...]) -> float:
    with torch.no_grad():
        probabilities = model(torch.tensor([forced])).logits[0, -1].double().softmax(-1)
    return float(sum(probabilities[opener] for opener in OPENERS))


def test_it_is_the_sum_of_probabilities(model: LlamaForCausalLM) -> None:
    found = opener_mass(model, PROMPTS, ANSWERS, OPENERS)
    assert found.shape == (3, 4) and found.dtype == torch.float32
    expected = torch.full((3, 4), float("nan"))
    for (n, answer), (p, position) in itertools.product(enumerate(ANSWERS), enumerate((0, 10, 30, 60))):
        if position <= len(answer):
            expected[n, p] = alone(model, (*PROMPTS[n], *answer[:position]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8, equal_nan=True)


def test_an_answer_too_short_is_missing_and_one_just_long_enough_is_not(model: LlamaForCausalLM) -> None:
    found = opener_mass(model, PROMPTS, ANSWERS, OPENERS, positions=(3, 4, 12, 13))
    assert found.isnan().tolist() == [[False] * 4, [False, False, False, True], [False, True, True, True]]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_and_order_do_not_matter(model: LlamaForCausalLM, batch_size: int) -> None:
    def mass(order: list[int], size: int) -> Tensor:
        return opener_mass(
            model, [PROMPTS[i] for i in order], [ANSWERS[i] for i in order], OPENERS, batch_size=size
        )

    torch.testing.assert_close(
        mass([2, 0, 1], batch_size), mass([0, 1, 2], 8)[[2, 0, 1]], rtol=1e-4, atol=1e-8, equal_nan=True
    )


def test_all_tokens_together_have_mass_one(model: LlamaForCausalLM) -> None:
    every = range(model.config.vocab_size)
    found = opener_mass(model, PROMPTS, ANSWERS, every, positions=(0, 3))
    torch.testing.assert_close(found, torch.ones(3, 2), rtol=1e-5, atol=0)


def test_it_leaves_the_mode_as_it_was_and_asks_for_no_gradient(model: LlamaForCausalLM) -> None:
    model.train()
    found = opener_mass(model, PROMPTS[:1], ANSWERS[:1], OPENERS[:1])
    assert model.training and not found.requires_grad
    model.eval()


def test_bad_input_is_named(model: LlamaForCausalLM) -> None:
    with pytest.raises(DataError, match="row 1: the prompt is empty"):
        opener_mass(model, [(1,), ()], [(2,), (3,)], OPENERS)
    with pytest.raises(ValueError, match="zip"):
        opener_mass(model, PROMPTS, ANSWERS[:2], OPENERS)
