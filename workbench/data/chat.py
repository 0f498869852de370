"""An exchange as a document: the chat template of a tokenizer around a user turn and an assistant turn."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

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
        spelled = [
            t.content for t in tokenizer.added_tokens_decoder.values() if t.special and t.content in text
        ]
        if spelled:
            raise DataError(
                f"the {turn}'s turn spells the special token {spelled[0]}; take it out of the data"
            )
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))
