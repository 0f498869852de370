"""How likely a model is to refuse from within an answer: the probability of refusal openers, no generation.

The answer is forced up to a position t, and P(t) = sum over the openers o of p(o | prompt, answer_<t). A
model that refuses only at its first words has a high P(0) and low P(10), P(30), P(60).

Source: Y. Yuan et al., arXiv 2407.09121 (DeRTa), section 2: refusal position bias.

Letters: N answers, P positions, B rows a batch, L their longest, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.errors import DataError

POSITIONS = (0, 10, 30, 60)


@torch.no_grad()
def opener_mass(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    openers: Sequence[int],
    positions: Sequence[int] = POSITIONS,
    batch_size: int = 8,
) -> Tensor:
    """Probability that the model goes on with an opener at each position of each answer.

    Args:
        model: causal; its mode is left as it was.
        prompts: tokens up to where the answer begins, chat format included.
        answers: tokens of given answers, without their end.
        openers: distinct tokens.
        positions: tokens of the answer before the opener.
        batch_size: answers a pass.

    Returns:
        [N, P] float32 on the CPU, in [0, 1]; NaN where the answer has fewer tokens than the position.

    Raises:
        DataError: a prompt is empty; names the row.
        ValueError: there are not as many answers as prompts.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"row {number}: the prompt is empty; render it with the model's chat template")
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    mass = torch.full((len(rows), len(positions)), float("nan"))
    training = model.training
    model.train(False)
    order = sorted(range(len(rows)), key=lambda n: -len(rows[n]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        # Padding stands on the right, where a causal model's earlier positions do not see it.
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(rows[n]) for n in batch], batch_first=True)  # [B, L]
        logits = model(input_ids=tokens.to(model.device), use_cache=False).logits  # [B, L, V]
        for n, of_row in zip(batch, logits, strict=True):
            for p, position in enumerate(positions):
                if position <= len(answers[n]):
                    probabilities = of_row[len(prompts[n]) + position - 1].float().softmax(-1)  # [V]
                    mass[n, p] = probabilities[list(openers)].sum().cpu()
    model.train(training)
    # A sum of float32 probabilities may pass 1 by a rounding.
    return mass.clamp(max=1.0)
