"""DeRTa: decoupled refusal training, as labels alone (Yuan et al., arXiv 2407.09121, section 3).

    L = - E log P(r | q, h_<k)  -  E sum_{t=1..|h|} log P(s | q, h_<t)

q a harmful request, r a safe and h a harmful response, k drawn from 0..|h|, s the refusal token. The first
term (MLE with a harmful response prefix) scores r behind a part of h; the second (reinforced transition
optimization, RTO) asks for s at every place of h, whose tokens are only read and never imitated.

Rows are made from token ids; the model and its forward pass stay as they are, so the one loop takes them
beside rows of harmless exchanges. As in the released code the loss is a mean over tokens, not the sum of the
formula. Differences to it: prefixes are cut between tokens, not words, and the dropout of RTO places is drawn
over the response, not over the whole padded row.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from workbench.data import NO_TARGET, Row, answered, parted, tokenized
from workbench.errors import DataError, ModelError, RecipeError

PREFIXED, TRANSITIONS = "prefixed", "transitions"  # the sources of the rows of the two terms
EMPTY_EVERY = 3  # every so-manieth prefix is empty, so that refusing at once is trained too


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


def refusal_token(tokenizer: PreTrainedTokenizerBase, refusals: Sequence[str]) -> Opener:
    """Find s: the first token of the refusals, as they are told behind the chat template.

    Args:
        tokenizer: of the model.
        refusals: the safe responses in use; all must begin with the same token.

    Raises:
        DataError: no refusals, a blank one, refusals that begin differently, or a chat template that does
            not part prompt and answer.
        ModelError: the first token of a refusal is blank, or the template's and not the refusal's.
    """
    if not refusals:
        raise DataError("refusals: none are given, so there is no refusal token; give the safe responses")
    if blank := [number for number, refusal in enumerate(refusals) if not refusal.strip()]:
        raise DataError(f"refusals: row {blank[0]} is blank; leave it out, or write a refusal")
    told = tokenized((parted(tokenizer, "?", refusal) for refusal in refusals), tokenizer)
    tokens = [answer[0] for _, answer in told]
    counts = Counter(tokens).most_common()
    if len(counts) > 1:
        odd = next(number for number, token in enumerate(tokens) if token != counts[0][0])
        found = ", ".join(f"{tokenizer.decode([token])!r} {count} times" for token, count in counts[:5])
        raise DataError(
            f"refusals: {len(counts)} openers ({found}; row {odd} is the first to differ), but the refusal "
            "token must begin them all; keep the rows of one opener, or reword the others"
        )
    text = str(tokenizer.decode(tokens[:1])).strip()
    if not text or not refusals[0].strip().startswith(text):
        raise ModelError(
            f"refusals: behind the chat template they begin with {text!r}, and {refusals[0][:20]!r} does "
            "not; use a model whose template and tokenizer part where the answer begins"
        )
    encoded = (tokenizer.encode(form, add_special_tokens=False) for form in (text, f" {text}"))
    forms = dict.fromkeys((tokens[0], *(found[0] for found in encoded if len(found) == 1)))
    return Opener(tokens[0], text, tuple(forms))


def mixture(harmless: Mapping[str, float], share: float) -> dict[str, float]:
    """Weights of all sources; they sum to 1, and the two terms have the same.

    Args:
        harmless: weights of the sources of harmless exchanges, which sum to 1.
        share: of the rows of the two terms together.

    Raises:
        RecipeError: a source is named as those of the two terms are.
    """
    if taken := sorted({PREFIXED, TRANSITIONS} & set(harmless)):
        raise RecipeError(
            f"mixture: {', '.join(taken)} is what derta calls rows of its own; rename the source"
        )
    weights = {name: (1 - share) * weight for name, weight in harmless.items()}
    return {PREFIXED: share / 2, TRANSITIONS: share / 2} | weights


def prefix_length(number: int, longest: int, rng: random.Random) -> int:
    """The k of a row: 0 for every third row, else uniform in 1..longest.

    Args:
        number: of the row, counted from 0.
        longest: |h|, or how much of it there is room for.
        rng: of the row.
    """
    return 0 if number % EMPTY_EVERY == 0 or longest == 0 else rng.randint(1, longest)


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
    if not 0 <= k <= len(harmful):
        raise DataError(f"k: {k} is not in 0..{len(harmful)}, the length of the harmful response")
    return answered((*prompt, *harmful[:k]), safe)


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


def _check_prompt(prompt: Sequence[int]) -> None:
    if not prompt:
        raise DataError("the prompt is empty, so nothing precedes the first token; give the row a prompt")
