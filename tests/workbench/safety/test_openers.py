"""Opener mass equals the product of conditionals one by one, and knows nothing of batches and padding."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.errors import DataError
from workbench.safety.openers import opener_mass, opener_tokens

PROMPTS = [(5, 9, 17, 40), (8, 3), (60, 61, 62, 63, 64, 65)]
ANSWERS = [tuple(range(100, 170)), tuple(range(70, 82)), (33, 34, 35)]
OPENERS = [(11,), (12, 13), (12, 14, 15), (300,)]


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> LlamaForCausalLM:
    found: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(tiny_model_folder).eval()
    return found


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(tiny_model_folder)
    return found


def one_by_one(model: LlamaForCausalLM, forced: tuple[int, ...]) -> float:
    total = 0.0
    for opener in OPENERS:
        context, probability = list(forced), 1.0
        for token in opener:
            with torch.no_grad():
                logits = model(torch.tensor([context])).logits[0, -1].double()
            probability *= float(logits.softmax(-1)[token])
            context.append(token)
        total += probability
    return total


def test_it_is_the_sum_of_products_of_conditionals(model: LlamaForCausalLM) -> None:
    found = opener_mass(model, PROMPTS, ANSWERS, OPENERS)
    assert found.shape == (3, 4) and found.dtype == torch.float32
    expected = torch.full((3, 4), float("nan"))
    for (n, answer), (p, position) in itertools.product(enumerate(ANSWERS), enumerate((0, 10, 30, 60))):
        if position <= len(answer):
            expected[n, p] = one_by_one(model, (*PROMPTS[n], *answer[:position]))
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
    every = [(token,) for token in range(model.config.vocab_size)]
    found = opener_mass(model, PROMPTS, ANSWERS, every, positions=(0, 3))
    torch.testing.assert_close(found, torch.ones(3, 2), rtol=1e-5, atol=0)


def test_all_continuations_of_a_token_have_its_mass(model: LlamaForCausalLM) -> None:
    pairs = [(7, token) for token in range(model.config.vocab_size)]
    torch.testing.assert_close(
        opener_mass(model, PROMPTS, ANSWERS, pairs, positions=(2,)),
        opener_mass(model, PROMPTS, ANSWERS, [(7,)], positions=(2,)),
        rtol=1e-4,
        atol=0,
    )


def test_a_longer_answer_does_not_change_earlier_positions(model: LlamaForCausalLM) -> None:
    short = opener_mass(model, PROMPTS[:1], [ANSWERS[0][:10]], OPENERS, positions=(0, 10))
    torch.testing.assert_close(
        short, opener_mass(model, PROMPTS[:1], ANSWERS[:1], OPENERS, positions=(0, 10)), rtol=1e-4, atol=0
    )


def test_it_leaves_the_mode_as_it_was_and_asks_for_no_gradient(model: LlamaForCausalLM) -> None:
    model.train()
    found = opener_mass(model, PROMPTS[:1], ANSWERS[:1], OPENERS[:1])
    assert model.training and not found.requires_grad
    model.eval()


def test_openers_are_spelled_with_and_without_a_space(tokenizer: PreTrainedTokenizerFast) -> None:
    found = opener_tokens(tokenizer, ["Nobody", "The river"])
    assert sorted(tokenizer.decode(list(o)) for o in found) == [
        " Nobody",
        " The river",
        "Nobody",
        "The river",
    ]
    assert not any(tokenizer.bos_token_id in o for o in found)


def test_an_opener_covers_the_longer_ones_that_begin_with_it(tokenizer: PreTrainedTokenizerFast) -> None:
    assert opener_tokens(tokenizer, ["The", "The river", "The"]) == opener_tokens(tokenizer, ["The"])


def test_bad_input_is_named(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="row 1: the prompt is empty"):
        opener_mass(model, [(1,), ()], [(2,), (3,)], OPENERS)
    with pytest.raises(ValueError, match=r"opener \(12, 13\): empty, or another opener is its beginning"):
        opener_mass(model, PROMPTS, ANSWERS, [(12,), (12, 13)])
    with pytest.raises(ValueError, match="zip"):
        opener_mass(model, PROMPTS, ANSWERS[:2], OPENERS)
    for openers in ([], ["  "]):
        with pytest.raises(DataError, match="each needs a word"):
            opener_tokens(tokenizer, openers)
