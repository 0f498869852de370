from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.errors import DataError, ModelError
from workbench.evaluation.answers import Asked, Generation, generate

REQUESTS = [Asked("The cat"), Asked("The owl of Rome eats figs."), Asked("The dog of Lima", "eats rice")]


def ask(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[Asked], batch_size: int = 2
) -> list[Generation]:
    return generate(model, tokenizer, asked, max_new_tokens=12, batch_size=batch_size, title="row")


def by_hand(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, each: Asked) -> list[int]:
    """The likeliest token after the likeliest token, until the end or to the twelfth."""
    turns = [{"role": "user", "content": each.prompt}]
    stem = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    text = f"{stem}{each.prefix}"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    made: list[int] = []
    with torch.no_grad():
        while len(made) < 12 and tokenizer.eos_token_id not in made:
            made.append(int(model(torch.tensor([tokens + made])).logits[0, -1].argmax()))
    return made


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_the_likeliest_tokens_in_any_batch(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, batch_size: int
) -> None:
    made = [by_hand(model, tokenizer, each) for each in REQUESTS]
    expected = [
        Generation(str(tokenizer.decode(tokens, skip_special_tokens=True)), tokenizer.eos_token_id in tokens)
        for tokens in made
    ]
    assert ask(model, tokenizer, REQUESTS, batch_size) == expected
    assert len({each.text for each in expected}) == 3


def test_an_answer_ends_where_any_of_the_models_end_tokens_stands(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    made = by_hand(model, tokenizer, REQUESTS[0])
    first = made.index(made[4])
    ending = copy.deepcopy(model)
    ending.generation_config.eos_token_id = [made[4]]
    ending.generation_config.repetition_penalty = 7.0  # greedy is greedy
    [answer] = ask(ending, tokenizer, REQUESTS[:1])
    assert answer == Generation(str(tokenizer.decode(made[: first + 1], skip_special_tokens=True)), True)
    [longer] = ask(model, tokenizer, REQUESTS[:1])
    assert not longer.finished
    assert longer.text.startswith(answer.text)


def test_what_cannot_be_asked_is_named(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        DataError, match=r"row 1: the request has \d+ tokens, .* leave it 84 of the model's 96"
    ):
        ask(model, tokenizer, [Asked("cat"), Asked("cat " * 100)])
    with pytest.raises(DataError, match="row 1: the request spells the special token"):
        ask(model, tokenizer, [Asked("cat"), Asked(f"cat {tokenizer.eos_token}")])
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        ask(model, plain, REQUESTS)
    assert ask(model, tokenizer, []) == []
