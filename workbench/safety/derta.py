"""DeRTa: decoupled refusal training, as labels alone (Yuan et al., arXiv 2407.09121, section 3).

    L = - E log P(r | q, h_<k)  -  E sum_{t=1..|h|} log P(s | q, h_<t)

q a harmful request, r a safe and h a harmful response, k drawn from 0..|h|, s the refusal token. The first
term (MLE with a harmful response prefix) scores r behind a part of h; the second (reinforced transition
optimization, RTO) asks for s at every place of h, whose tokens are only read and never imitated.

Rows are made from token ids; the model and its forward pass stay as they are, so that any training of ours
or of others takes them. Differences to the released code: prefixes are cut between tokens, not words, and the
dropout of RTO places is drawn over the response, not over the whole padded row.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from workbench.data import NO_TARGET, Batch
from workbench.errors import DataError, ModelError

EMPTY_EVERY = 3  # every so-manieth prefix is empty, so that refusing at once is trained too
PADDING = -1  # the document of a place that holds nothing


@dataclass(frozen=True)
class Row:
    """One exchange.

    Attributes:
        tokens: n ids.
        labels: n ids, what is asked for at the place of each token; NO_TARGET where nothing is.
    """

    tokens: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Opener:
    """The token that begins every refusal.

    Attributes:
        token: s, as the model emits it behind the chat template.
        text: what it spells.
        forms: `token`, then what else spells the text without or with a leading space, as far as the
            vocabulary has it in one token; a probe adds them up.
    """

    token: int
    text: str
    forms: tuple[int, ...]


def refusal_token(
    tokenizer: PreTrainedTokenizerBase, refusals: Sequence[str], stem: str | None = None
) -> Opener:
    """Find s: the first token of the refusals, where an answer begins.

    Args:
        tokenizer: of the model.
        refusals: the safe responses in use; all must begin with the same token.
        stem: text in front of an answer; None for what the chat template puts there.

    Raises:
        DataError: no refusals, a blank one, or refusals that begin differently.
        ModelError: the tokenizer has no chat template and no stem is given, or the first token of a refusal
            is blank or belongs to the stem.
    """
    if not refusals:
        raise DataError("refusals: none are given, so there is no refusal token; give the safe responses")
    stem = _stem(tokenizer) if stem is None else stem
    tokens = [_first(tokenizer, stem, refusal, number) for number, refusal in enumerate(refusals)]
    counts = Counter(tokens).most_common()
    if len(counts) > 1:
        odd = next(number for number, token in enumerate(tokens) if token != counts[0][0])
        found = ", ".join(f"{tokenizer.decode([token])!r} {count} times" for token, count in counts[:5])
        raise DataError(
            f"refusals: {len(counts)} openers ({found}; row {odd} is the first to differ), but the refusal "
            "token must begin them all; keep the rows of one opener, or reword the others"
        )
    text = str(tokenizer.decode(tokens[:1])).strip()
    encoded = (tokenizer.encode(form, add_special_tokens=False) for form in (text, f" {text}"))
    forms = dict.fromkeys((tokens[0], *(found[0] for found in encoded if len(found) == 1)))
    return Opener(tokens[0], text, tuple(forms))


def prefix_length(number: int, longest: int, rng: random.Random) -> int:
    """The k of a row: 0 for every third row, else uniform in 1..longest.

    Args:
        number: of the row, counted from 0.
        longest: |h|, or how much of it there is room for.
        rng: of the row.
    """
    return 0 if number % EMPTY_EVERY == 0 or longest == 0 else rng.randint(1, longest)


def answered(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    """An ordinary row: the answer is scored, the prompt is not.

    Args:
        prompt: what stands before the answer, chat marks included.
        answer: with the mark that ends it.

    Raises:
        DataError: the prompt or the answer is empty.
    """
    return prefixed(prompt, (), answer, 0)


def prefixed(prompt: Sequence[int], harmful: Sequence[int], safe: Sequence[int], k: int) -> Row:
    """A row of the first term: r behind the first k tokens of h; only r is scored.

    Args:
        prompt: q, with what the chat template puts before an answer.
        harmful: h, without the mark that ends a turn.
        safe: r, with that mark.
        k: how much of h is read, 0..|h|.

    Raises:
        DataError: the prompt or the safe response is empty, or k is out of range.
    """
    _check_prompt(prompt)
    if not safe:
        raise DataError("the safe response is empty; leave the row out, or give it a response")
    if not 0 <= k <= len(harmful):
        raise DataError(f"k: {k} is not in 0..{len(harmful)}, the length of the harmful response")
    read = (*prompt, *harmful[:k])
    return Row((*read, *safe), (NO_TARGET,) * len(read) + tuple(safe))


def transition(
    prompt: Sequence[int], harmful: Sequence[int], refusal: int, dropout: float, rng: random.Random
) -> Row:
    """A row of the second term (RTO): s is asked for at every place of h, or at a random part of them.

    Args:
        prompt: q, with what the chat template puts before an answer.
        harmful: h, without the mark that ends a turn; read, never imitated.
        refusal: s.
        dropout: share of the places of h that are not scored; one is always kept.
        rng: of the row.

    Raises:
        DataError: the prompt or the harmful response is empty, or the dropout is not in [0, 1].
    """
    _check_prompt(prompt)
    if not harmful:
        raise DataError("the harmful response is empty, so there is no place to refuse at; leave the row out")
    if not 0 <= dropout <= 1:
        raise DataError(f"dropout: {dropout:g} is not in [0, 1]")
    kept = {place for place in range(len(harmful)) if rng.random() >= dropout}
    kept = kept or {rng.randrange(len(harmful))}
    labels = (refusal if place in kept else NO_TARGET for place in range(len(harmful)))
    return Row((*prompt, *harmful), (NO_TARGET,) * len(prompt) + tuple(labels))


def cut(row: Row, most: int) -> Row:
    """The first `most` tokens of a row.

    Raises:
        DataError: nothing that is scored would be left.
    """
    if len(row.tokens) <= most:
        return row
    kept = Row(row.tokens[:most], row.labels[:most])
    if set(kept.labels) == {NO_TARGET}:
        first = next(place for place, label in enumerate(row.labels) if label != NO_TARGET)
        raise DataError(
            f"a row is scored from token {first} on only, and would be cut to {most}; raise the sequence "
            "length, or leave the row out"
        )
    return kept


def bins(rows: Sequence[Row], sequence_length: int) -> list[list[Row]]:
    """Rows in their order, as many together as fit into `sequence_length` tokens.

    Raises:
        DataError: names a row that does not fit by itself.
    """
    made: list[list[Row]] = []
    room = 0
    for number, row in enumerate(rows):
        size = _size(row, number, sequence_length)
        if size > room:
            made.append([])
            room = sequence_length
        made[-1].append(row)
        room -= size
    return made


def collate(packed: Sequence[Sequence[Row]], sources: Sequence[str], sequence_length: int) -> Batch:
    """A batch with one sequence for each bin, padded at the end; rows of a bin do not see each other.

    The last token of a row is only ever predicted, so a row of n tokens takes n - 1 places.

    Args:
        packed: B bins; bins of one row each give a padded batch.
        sources: B names.
        sequence_length: L.

    Raises:
        DataError: a bin has more tokens than places.
    """
    shape = (len(packed), sequence_length)
    tokens, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, NO_TARGET, dtype=torch.int64)
    documents = torch.full(shape, PADDING, dtype=torch.int32)
    for b, rows in enumerate(packed):
        start = 0
        for document, row in enumerate(rows):
            stop = start + _size(row, b, sequence_length - start)
            tokens[b, start:stop] = torch.tensor(row.tokens[:-1])
            labels[b, start:stop] = torch.tensor(row.labels[1:])
            positions[b, start:stop] = torch.arange(stop - start)
            documents[b, start:stop] = document
            start = stop
    return Batch(tokens, labels, positions, documents, list(sources))


def _size(row: Row, number: int, room: int) -> int:
    """Places that a row takes."""
    size = len(row.tokens) - 1
    if size > room:
        raise DataError(
            f"row {number} takes {size} places and there are {room}; raise the sequence length, or cut it"
        )
    return size


def _check_prompt(prompt: Sequence[int]) -> None:
    if not prompt:
        raise DataError("the prompt is empty, so nothing precedes the first token; give the row a prompt")


def _stem(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template puts around a user's turn, up to where the assistant begins."""
    if tokenizer.chat_template is None:
        raise ModelError("the model's tokenizer has no chat template; use an instruct model, or give `stem`")
    turns = [{"role": "user", "content": "?"}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _first(tokenizer: PreTrainedTokenizerBase, stem: str, refusal: str, number: int) -> int:
    """The first token of a refusal behind the stem: where both part, encoded alone and together."""
    if not refusal.strip():
        raise DataError(f"refusals: row {number} is blank; leave it out, or write a refusal")
    alone, both = (tokenizer.encode(text, add_special_tokens=False) for text in (stem, stem + refusal))
    pairs = enumerate(zip(alone, both, strict=False))
    place = next((i for i, (left, right) in pairs if left != right), min(len(alone), len(both)))
    token: int | None = both[place] if place < len(both) else None
    spelled = "" if token is None else str(tokenizer.decode([token]))
    if token is None or not spelled.strip() or not refusal.strip().startswith(spelled.strip()):
        raise ModelError(
            f"refusals: behind {stem[-20:]!r} the first token of row {number} is {spelled!r}, which does not "
            "spell its beginning; give a `stem` that ends where the tokenizer parts"
        )
    return token
