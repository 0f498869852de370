"""Answers: what a chat model says to requests, greedily, so that the same model always says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from workbench.errors import DataError, ModelError
from workbench.evaluation.harness import LoadedModel


@dataclass(frozen=True)
class Asked:
    """A user's turn, and what the assistant has said already: an attack can put words into its mouth."""

    prompt: str
    prefix: str = ""


@dataclass(frozen=True)
class Generation:
    """What a model said.

    Attributes:
        text: without the prefix and without special tokens.
        finished: whether the model ended it by itself, within the tokens it was given.
    """

    text: str
    finished: bool


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[Asked],
    *,
    max_new_tokens: int,
    batch_size: int,
    title: str,
) -> list[Generation]:
    """Greedy answers through the chat template, in the order of the requests.

    Args:
        model: causal; quantized or not.
        tokenizer: the model's own, with a chat template.
        asked: the requests.
        max_new_tokens: longest answer.
        batch_size: requests in one pass; it changes answers only as far as it rounds differently.
        title: the model's name, for the progress lines.

    Raises:
        ModelError: the tokenizer has no chat template.
        DataError: a turn spells a special token, or leaves no room for the answer; names the row.
    """
    if not asked:
        return []
    stems = [stem(tokenizer, each.prompt, row) + each.prefix for row, each in enumerate(asked)]
    answering = _Answering(model, tokenizer, batch_size, title)
    answering.check_room(stems, max_new_tokens)
    settings = {"max_gen_toks": max_new_tokens, "do_sample": False}
    requests = [
        Instance("generate_until", {}, (text, settings), row, ("requests", row, 1))
        for row, text in enumerate(stems)
    ]
    texts = answering.generate_until(requests)
    return [Generation(text, answering.finished[whole]) for text, whole in zip(texts, stems, strict=True)]


def stem(tokenizer: PreTrainedTokenizerFast, prompt: str, row: int = 0) -> str:
    """The text that an assistant answers behind: a user's turn in the chat template.

    Args:
        tokenizer: with a chat template.
        prompt: the user's turn.
        row: named in errors.

    Raises:
        ModelError: the tokenizer has no chat template.
        DataError: the turn spells a special token, which would act as one.
    """
    if tokenizer.chat_template is None:
        raise ModelError(
            "the model's tokenizer has no chat template, so no request can be put to it; use an instruct "
            "model, or a battery without safety"
        )
    special = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    if spelled := [token for token in special if token in prompt]:
        raise DataError(f"row {row}: the request spells the special token {spelled[0]}; take the row out")
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


class _Answering(LoadedModel):
    """Generates greedily, and remembers of each text whether its answer ended by itself."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, title: str
    ) -> None:
        super().__init__(model, tokenizer, batch_size, title)
        configured: Any = model.generation_config.eos_token_id if model.generation_config else None
        known = configured if isinstance(configured, list) else [configured]
        self.ends = [token for token in dict.fromkeys([tokenizer.eos_token_id, *known]) if token is not None]
        self.finished: dict[str, bool] = {}
        self._batch: list[str] = []

    def check_room(self, texts: Sequence[str], max_new_tokens: int) -> None:
        """See that the longest answer fits behind every text; lm-eval would cut the request."""
        room = self.max_length - max_new_tokens
        for row, text in enumerate(texts):
            if (length := len(self.tok_encode(text))) > room:
                raise DataError(
                    f"row {row}: the request has {length} tokens, and answers of {max_new_tokens} leave it "
                    f"{room} of the model's {self.max_length}; lower max_new_tokens, or take the row out"
                )

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Tokens and their mask, [B, P] each; the batch is generated from next."""
        self._batch = list(strings)
        encoded: tuple[Tensor, Tensor] = super().tok_batch_encode(strings, *args, **kwargs)
        return encoded

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], *, attention_mask: Tensor, **_: Any
    ) -> Tensor:
        """Rows of tokens [B, P + n]; other than lm-eval's, it looks for ends among tokens, not in text."""
        config = GenerationConfig(
            max_length=max_length,
            do_sample=False,
            repetition_penalty=1.0,  # some models come with another one
            eos_token_id=self.ends or None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        generate: Any = self.model.generate
        with torch.no_grad():
            rows: Tensor = generate(context, attention_mask=attention_mask, generation_config=config)
        made = rows[:, context.shape[1] :]
        ended = torch.isin(made, torch.tensor(self.ends, dtype=made.dtype, device=made.device)).any(1)
        self.finished |= dict(zip(self._batch, ended.tolist(), strict=True))
        return rows
