"""An exchange as a tokenizer's chat template tells it: one document, or parted where the answer begins."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from workbench.data.sources import Exchange
from workbench.errors import DataError


def render(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> str:
    """The text that a chat model sees in training, special tokens spelled out; blank if both turns are.

    Args:
        tokenizer: with a chat template.
        prompt: the user's turn.
        response: the assistant's turn.

    Raises:
        DataError: the tokenizer has no chat template, or a turn spells a special token, which would act
            as one.
    """
    if tokenizer.chat_template is None:
        raise DataError(
            "the model's tokenizer has no chat template; use an instruct model, or leave chat out"
        )
    if not (prompt + response).strip():
        return ""
    for turn, text in (("user", prompt), ("assistant", response)):
        if spelled := [mark for mark in _marks(tokenizer) if mark in text]:
            raise DataError(
                f"the {turn}'s turn spells the special token {spelled[0]}; take it out of the data"
            )
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def parted(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> Exchange:
    """An exchange as `render` tells it, parted where the assistant begins to speak; blank if both turns are.

    Returns:
        All that a model is given when it is asked, and its answer, which ends with the mark that ends it.

    Raises:
        DataError: as for `render`; or a turn is blank, or the template has no such place or no such mark.
    """
    told = render(tokenizer, prompt, response)
    if not told:
        return "", ""
    for turn, text in (("user", prompt), ("assistant", response)):
        if not text.strip():
            raise DataError(f"the {turn}'s turn is blank; leave the exchange out, or say something there")
    turns = [{"role": "user", "content": prompt}]
    asked = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    answer = told.removeprefix(asked).rstrip()
    if not told.startswith(asked):
        raise DataError(
            f"the chat template asks with {asked[-40:]!r} at the end, but tells an exchange otherwise: no "
            "part of it is the answer alone; use a template whose exchanges begin as it asks"
        )
    if not answer.endswith(tuple(_marks(tokenizer))):
        raise DataError(
            f"the chat template ends an answer with {answer[-20:]!r}, which is no special token, so a model "
            "would not learn to stop; use a template that puts one there"
        )
    return asked, answer


def _marks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
