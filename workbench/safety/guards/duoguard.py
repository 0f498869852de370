"""DuoGuard (Deng et al., arXiv 2502.05163): a small classifier of twelve hazards, any of which is unsafe.

The model is a sequence classifier with one logit s_j a hazard and the natural threshold 0. Its loss, of
the hazards P that a text has and those N that it has not, is

    L = log(1 + sum_{n in N} exp(s_n)) + log(1 + sum_{p in P} exp(-s_p))

Letters: B texts at a time, C hazards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workbench.errors import DataError, ModelError
from workbench.safety.guards.decoding import batches, defused
from workbench.safety.guards.protocol import UNSAFE_THRESHOLD, Verdict, check_rows

CATEGORIES = (
    "Violent Crimes",
    "Non-Violent Crimes",
    "Sex Crimes",
    "Child Exploitation",
    "Specialized Advice",
    "Privacy",
    "Intellectual Property",
    "Indiscriminate Weapons",
    "Hate",
    "Self-Harm",
    "Sexual Content",
    "Jailbreak Prompts",
)


def multi_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Multi-label categorical cross-entropy, the mean over texts.

    Args:
        logits: [B, C] float.
        labels: [B, C], 1 for a hazard that the text has, else 0.

    Returns:
        A scalar, nats.

    Source: the paper's loss, in the module's docstring.
    """
    has = labels.bool()
    absent = logits.masked_fill(has, -torch.inf)  # [B, C]
    present = (-logits).masked_fill(~has, -torch.inf)  # [B, C]
    # A column of zeros is the 1 inside each logarithm.
    return sum(pad(each, (1, 0)).logsumexp(1) for each in (absent, present)).mean()  # type: ignore[union-attr]


@dataclass(frozen=True)
class DuoGuard:
    """DuoGuard behind the protocol of all guards.

    A response is judged as one text with its prompt, so that a refused harmful prompt may still be unsafe.

    Attributes:
        model: a sequence classifier with a logit for each category.
        tokenizer: of the model that it was made from.
        categories: names in the order of the logits.
        batch_size: texts in one forward pass.

    Raises:
        ModelError: the model does not have a logit for each category, or no token to pad with.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    categories: tuple[str, ...] = CATEGORIES
    batch_size: int = 32
    name: str = "duoguard"

    def __post_init__(self) -> None:
        if self.model.config.num_labels != len(self.categories):
            raise ModelError(
                f"the classifier has {self.model.config.num_labels} labels, but {len(self.categories)} "
                "categories are named; name one category for each label, in their order"
            )
        if self.model.config.pad_token_id is None:
            raise ModelError(
                "the classifier's config has no pad_token_id, so that texts of different lengths cannot be "
                "judged together; set it to the tokenizer's end-of-text token"
            )

    def judge(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> list[Verdict]:
        """A verdict on each prompt, or on each prompt and response as one text.

        Raises:
            DataError: as in `Guard.judge`.
        """
        scores = self.scores(prompts, responses)
        return [
            Verdict(
                max(row),
                tuple(name for name, p in zip(self.categories, row, strict=True) if p > UNSAFE_THRESHOLD),
            )
            for row in scores.tolist()
        ]

    def category_scores(
        self, prompts: Sequence[str], responses: Sequence[str] | None, names: Sequence[str]
    ) -> Tensor:
        """Probability of each named hazard, [n, C] float64.

        Raises:
            DataError: as in `Guard.judge`.
        """
        return self.scores(prompts, responses)[:, [self.categories.index(name) for name in names]]

    def scores(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> Tensor:
        """Probability of each hazard.

        Returns:
            [n, C] float64, each its own sigmoid; rows do not sum to 1.

        Raises:
            DataError: as in `Guard.judge`.
        """
        check_rows(prompts, responses)
        texts = (
            prompts
            if responses is None
            else [" ".join(pair) for pair in zip(prompts, responses, strict=True)]
        )
        rows = [self.tokenizer.encode(defused(self.tokenizer, text)) for text in texts]
        room = self.model.config.max_position_embeddings
        for row, ids in enumerate(rows):
            if len(ids) > room:
                raise DataError(
                    f"row {row}: {len(ids)} tokens, but the guard reads {room}; leave the row out, or judge "
                    "it in parts"
                )
        scores = torch.empty(len(rows), len(self.categories), dtype=torch.float64)
        for batch in batches(rows, self.batch_size):
            scores[batch] = self._probabilities([rows[row] for row in batch])
        return scores

    @torch.no_grad()
    def _probabilities(self, rows: list[list[int]]) -> Tensor:
        longest = max(map(len, rows))
        tokens = torch.full(
            (len(rows), longest), self.model.config.pad_token_id
        )  # [B, L], texts begin together
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        logits: Tensor = self.model(
            tokens.to(self.model.device), attention_mask=mask.to(self.model.device)
        ).logits
        return logits.double().sigmoid().cpu()  # [B, C]
