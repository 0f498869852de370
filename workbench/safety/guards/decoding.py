"""Asking a causal guard: prompts in, greedy tokens out, with the probability of the tokens that tell.

Letters: B prompts at a time, P tokens in the longest, V tokens in the vocabulary of which W are watched,
T tokens in an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import DataError, ModelError


@dataclass(frozen=True)
class Answer:
    """What a guard wrote.

    Attributes:
        tokens: T ids, without the one that ends the answer.
        log_probabilities: [T, W] float64, nats, on the CPU: of each watched token where tokens[t] was
            chosen, among the whole vocabulary.
        text: the tokens as text.
    """

    tokens: list[int]
    log_probabilities: Tensor
    text: str


def defused(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text with every special token that it spells broken by a space, so that it acts as text.

    Whoever wrote the judged text could otherwise end the guard's turn, and answer in its place.
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def fork(tokenizer: PreTrainedTokenizerBase, one: str, other: str) -> tuple[int, int]:
    """The first tokens at which two texts differ: whoever writes either text chooses between them.

    Raises:
        ModelError: the tokenizer has no tokens that tell the texts apart.
    """
    pairs = zip(*(tokenizer.encode(text, add_special_tokens=False) for text in (one, other)), strict=False)
    for left, right in pairs:
        if left != right:
            return left, right
    raise ModelError(
        f"the tokenizer does not tell {one!r} from {other!r}; take the one that the guard was trained with"
    )


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    watched: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
) -> list[Answer]:
    """Greedy answers to whole prompts, in which special tokens are spelled out.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: from BOS to where the answer begins.
        watched: W ids whose probability is wanted; the whole vocabulary's would fill the memory.
        batch_size: prompts in one forward pass.
        max_new_tokens: tokens at which an answer is cut off.

    Raises:
        DataError: a prompt and its answer do not fit into the guard's context; names the row, from 0.
        ModelError: nothing says which token ends an answer.
    """
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in prompts]
    room = model.config.max_position_embeddings - max_new_tokens
    for row, ids in enumerate(rows):
        if len(ids) > room:
            raise DataError(
                f"row {row}: {len(ids)} tokens with the guard's instructions, but the guard reads {room}; "
                "leave the row out, or take a guard with a longer context"
            )
    answers: dict[int, Answer] = {}
    for batch in batches(rows, batch_size):
        found = _answers(model, tokenizer, [rows[row] for row in batch], watched, max_new_tokens)
        answers |= dict(zip(batch, found, strict=True))
    return [answers[row] for row in range(len(rows))]


def batches(rows: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Numbers of rows of like lengths together, so that little is padding.

    The longest come first: where memory does not suffice, it is found out at once.
    """
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[list[int]],
    watched: Sequence[int],
    max_new_tokens: int,
) -> list[Answer]:
    ends = _ends(model, tokenizer)
    tokens, log_p = _greedy(model, rows, watched, ends, max_new_tokens)
    answers = []
    for row, written in enumerate(tokens.tolist()):
        length = next((t for t, token in enumerate(written) if token in ends), len(written))
        text = str(tokenizer.decode(written[:length], clean_up_tokenization_spaces=False))
        answers.append(Answer(written[:length], log_p[row, :length], text))
    return answers


@torch.no_grad()
def _greedy(
    model: PreTrainedModel,
    rows: list[list[int]],
    watched: Sequence[int],
    ends: list[int],
    max_new_tokens: int,
) -> tuple[Tensor, Tensor]:
    """The likeliest tokens [B, T], and the log-probabilities of the watched ones [B, T, W].

    Not by `generate`, which also obeys the generation config of the folder: penalties, forbidden words.
    """
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)  # [B, P], prompts end together
    mask = torch.zeros_like(tokens)
    for row, ids in enumerate(rows):
        tokens[row, longest - len(ids) :] = torch.tensor(ids)
        mask[row, longest - len(ids) :] = 1
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    stops, ended = torch.tensor(ends, device=model.device), mask.new_zeros(len(rows), dtype=torch.bool)
    cache = None
    chosen: list[Tensor] = []
    kept: list[Tensor] = []
    while len(chosen) < max_new_tokens and not ended.all():
        output = model(
            tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        log_p, cache = output.logits[:, -1].double().log_softmax(1), output.past_key_values  # [B, V]
        tokens = log_p.argmax(1, keepdim=True)  # [B, 1]
        ended |= torch.isin(tokens[:, 0], stops)
        chosen.append(tokens.cpu())
        kept.append(log_p[:, list(watched)].cpu())
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = mask.sum(1, keepdim=True) - 1
    return torch.cat(chosen, dim=1), torch.stack(kept, dim=1)


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer."""
    config = model.generation_config
    ends = config.eos_token_id if config and config.eos_token_id is not None else tokenizer.eos_token_id
    if ends is None:
        raise ModelError(
            "neither the guard's generation config nor its tokenizer names a token that ends an answer; set "
            "eos_token_id in generation_config.json"
        )
    return ends if isinstance(ends, list) else [ends]
