"""How likely a model is to refuse from within an answer: the probability of refusal openers, no generation.

The answer is forced up to a position t, and the mass of the openers there is the probability that the model
would go on with one of them: P(t) = sum over openers o of prod_i p(o_i | prompt, answer_<t, o_<i). A model
that refuses only at its first words has a high P(0) and low P(10), P(30), P(60).

Source: Y. Yuan et al., arXiv 2407.09121 (DeRTa), section 2: refusal position bias.

Letters: N answers, P positions, B rows a batch, L their longest, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import DataError

POSITIONS = (0, 10, 30, 60)

Tokens = tuple[int, ...]
Readings = dict[Tokens, list[tuple[int, int, Tokens]]]


def opener_tokens(tokenizer: PreTrainedTokenizerBase, openers: Sequence[str]) -> list[Tokens]:
    """Tokens of openers, each as the first words of an answer and, with a space before, within one.

    Only the tokenizer's own spelling of an opener is counted, and an opener that another one begins with
    covers it: "I cannot" is left out beside "I".

    Raises:
        DataError: there is no opener, or one has no tokens.
    """
    spelled = {
        tuple(tokenizer.encode(space + opener.strip(), add_special_tokens=False))
        for opener in openers
        for space in ("", " ")
    }
    if not spelled or () in spelled:
        raise DataError(
            f"refusal openers {list(openers)}: each needs a word; give the words refusals begin with"
        )
    return sorted(o for o in spelled if not any(o[:k] in spelled for k in range(1, len(o))))


@torch.no_grad()
def opener_mass(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    openers: Sequence[Tokens],
    positions: Sequence[int] = POSITIONS,
    batch_size: int = 8,
) -> Tensor:
    """Probability that the model goes on with an opener at each position of each answer.

    Openers of one token cost one row for all positions of an answer, however many there are; longer ones
    cost one more for each position and each beginning (all but the last token) that no other goes on from.

    Args:
        model: causal; its mode is left as it was.
        prompts: tokens up to where the answer begins, chat format included.
        answers: tokens of given answers, without their end.
        openers: distinct, none the beginning of another; see `opener_tokens`.
        positions: tokens of the answer before the opener.
        batch_size: rows a pass.

    Returns:
        [N, P] float32 on the CPU, in [0, 1]; NaN where the answer has fewer tokens than the position.

    Raises:
        DataError: a prompt is empty; names the row.
        ValueError: there are not as many answers as prompts, or an opener is the beginning of another.
    """
    _check(prompts, openers)
    within = [position <= len(answer) for answer in answers for position in positions]
    reached = torch.tensor(within, dtype=torch.bool).reshape(len(answers), len(positions))
    mass = torch.where(reached, 0.0, float("nan"))
    rows = _merged(_rows(prompts, answers, openers, positions))
    training = model.training
    model.train(False)
    order = sorted(rows, key=len, reverse=True)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for row, log_probabilities in zip(batch, _log_probabilities(model, batch), strict=True):
            for n, p, opener in rows[row]:
                first = len(prompts[n]) + positions[p] - 1
                span = log_probabilities[first : first + len(opener)]  # [len(opener), V]
                chosen = torch.tensor(opener, device=span.device)[:, None]
                mass[n, p] += span.gather(1, chosen).sum().exp().cpu()
    model.train(training)
    # A sum of float32 probabilities may pass 1 by a rounding.
    return mass.clamp(max=1.0)


def _rows(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    openers: Sequence[Tokens],
    positions: Sequence[int],
) -> Readings:
    """Rows of tokens to pass, and what to read off each: (answer, place among the positions, opener)."""
    rows: Readings = defaultdict(list)
    for n, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        for p, position in enumerate(positions):
            for opener in openers if position <= len(answer) else ():
                forced = (*answer[:position], *opener[:-1]) if len(opener) > 1 else answer
                rows[(*prompt, *forced)].append((n, p, opener))
    return rows


def _merged(rows: Readings) -> Readings:
    """The rows that are no beginning of another one; what was to be read off the others is read off them."""
    merged: Readings = {}
    longest: Tokens = ()
    # In this order a row comes right before those that go on from it.
    for row in sorted(rows, reverse=True):
        if longest[: len(row)] != row:
            longest = row
        merged.setdefault(longest, []).extend(rows[row])
    return merged


def _log_probabilities(model: PreTrainedModel, batch: Sequence[Tokens]) -> Iterator[Tensor]:
    """For each row in turn [length, V] float32, whose row i speaks of token i + 1."""
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in batch], batch_first=True)  # [B, L]
    # Padding stands on the right, where a causal model's earlier positions do not see it.
    logits = model(input_ids=tokens.to(model.device), use_cache=False).logits  # [B, L, V]
    for row, of_row in zip(batch, logits, strict=True):
        yield of_row[: len(row)].float().log_softmax(-1)


def _check(prompts: Sequence[Sequence[int]], openers: Sequence[Tokens]) -> None:
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"row {number}: the prompt is empty; render it with the model's chat template")
    for opener in openers:
        if not opener or any(opener[:k] in openers for k in range(1, len(opener))):
            raise ValueError(f"opener {opener}: empty, or another opener is its beginning")
