"""Embeddings for the tokens of a new vocabulary, made from those of the old one.

Each way is a function of a matrix of the old embeddings, so that input and output embeddings are made
apart from each other. All but the random one are linear: E_new = A E_old with rows of A that sum to 1.

    translation   a_vu is the share of old token u in what new token v aligns with in parallel text
                  (Remy et al., arXiv 2408.04303; ChocoLlama, arXiv 2412.07633, section 3.2)
    mean          a_vu is equal over the old tokens that spell v
    copy          the old token with the text of v, else the mean of all old tokens
    random        normal, with the mean and the deviation that each dimension has over the old tokens

Letters: V old tokens, N new ones, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workbench.errors import ModelError

Spelling = Sequence[Sequence[int]]


def translation(old: Tensor, aligned: Sequence[Mapping[int, float]], spelling: Spelling) -> Tensor:
    """Sum over the old tokens that each new one aligns with; of its spelling where it aligns with none.

    Args:
        old: [V, D] float.
        aligned: [N], the shares a_vu by old token u, which sum to 1 or are none.
        spelling: [N], the old tokens that spell each new one.

    Returns:
        [N, D], dtype of `old`.
    """
    shares = [dict(found) or _even(spelled) for found, spelled in zip(aligned, spelling, strict=True)]
    return _combined(old, shares)


def mean(old: Tensor, spelling: Spelling) -> Tensor:
    """Mean of the old tokens that spell each new one; of all where there are none. [N, D] like `old`."""
    return _combined(old, [_even(spelled) for spelled in spelling])


def copy(old: Tensor, same: Sequence[int | None]) -> Tensor:
    """The old token of the same text, else the mean of all. [N, D], dtype of `old`."""
    return _combined(old, [{} if number is None else {number: 1.0} for number in same])


def random(old: Tensor, count: int, seed: int) -> Tensor:
    """`count` rows drawn as the old are distributed, each dimension by itself. [count, D] like `old`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, old.shape[1], generator=generator)
    spread, middle = torch.std_mean(old.float().cpu(), dim=0)
    return (middle + spread * drawn).to(old)


def fit(
    model: PreTrainedModel, inputs: Tensor, outputs: Tensor | None, anchored: Mapping[int, int]
) -> PreTrainedModel:
    """Give the model its new embeddings, in place; anchored tokens keep their rows bit for bit.

    Args:
        model: the old one.
        inputs: [N, D], input embeddings.
        outputs: [N, D], output embeddings; None where they are tied to the input embeddings.
        anchored: new id -> old id of the tokens that are not made anew.

    Raises:
        ModelError: `outputs` of a model that has none of its own, or none of a model that has.
    """
    if tied(model) != (outputs is None):
        raise ModelError(
            f"{type(model).__name__}: the output embeddings are {'' if tied(model) else 'not '}tied to the "
            f"input embeddings; {'leave out' if tied(model) else 'give'} the vocabulary's output"
        )
    new, old = map(list, zip(*anchored.items(), strict=True)) if anchored else ([], [])
    made = [inputs.clone()] if outputs is None else [inputs.clone(), outputs.clone()]
    for matrix, before in zip(made, matrices(model), strict=False):
        matrix[new] = before[old]
    model.config.tie_word_embeddings = outputs is None  # what the weights say counts
    model.resize_token_embeddings(len(inputs), mean_resizing=False)
    with torch.no_grad():
        for weight, matrix in zip(matrices(model), made, strict=False):
            weight.copy_(matrix)
    return model


def matrices(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Input and output embeddings, which may be one and the same. [V, D] each."""
    ends: Any = model
    return ends.get_input_embeddings().weight.detach(), ends.get_output_embeddings().weight.detach()


def tied(model: PreTrainedModel) -> bool:
    """Whether input and output embeddings are one matrix."""
    inputs, outputs = matrices(model)
    return inputs.data_ptr() == outputs.data_ptr()


def _even(spelled: Sequence[int]) -> dict[int, float]:
    shares: dict[int, float] = {}
    for number in spelled:
        shares[number] = shares.get(number, 0.0) + 1 / len(spelled)
    return shares


def _combined(old: Tensor, shares: Sequence[Mapping[int, float]]) -> Tensor:
    """A E_old, with the mean of all old tokens in rows without shares."""
    rows = [row for row, found in enumerate(shares) for _ in found]
    columns = [column for found in shares for column in found]
    values = [value for found in shares for value in found.values()]
    where = torch.tensor([rows, columns], dtype=torch.int64).reshape(2, -1)
    size = (len(shares), len(old))
    weights = torch.sparse_coo_tensor(where, torch.tensor(values), size, check_invariants=True)
    matrix: Tensor = torch.sparse.mm(weights, old.float().cpu())  # [N, D]
    matrix[[row for row, found in enumerate(shares) if not found]] = old.float().cpu().mean(0)
    return matrix.to(old.device, old.dtype)
