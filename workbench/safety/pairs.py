"""Pairs: a request with the answer that does what is asked and the one that refuses; their order in training.

Half of what a defence learns is when not to refuse: a harmless request is affirmed, and what it turns down
there is one of the refusals that it learns elsewhere. Letters: P prompts, N pairs.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from workbench import data
from workbench.data.permutation import key, permute
from workbench.data.quota import Quota
from workbench.errors import DataError
from workbench.safety.triplets import Triplet


@dataclass(frozen=True)
class Pair:
    """A request and its two answers.

    Attributes:
        prompt: the user's turn.
        affirming: does what is asked.
        rejecting: refuses.
        malicious: whether refusing is right.
    """

    prompt: str
    affirming: str
    rejecting: str
    malicious: bool

    @property
    def chosen(self) -> str:
        """The answer that is right."""
        return self.rejecting if self.malicious else self.affirming

    @property
    def rejected(self) -> str:
        """The one that is not."""
        return self.affirming if self.malicious else self.rejecting


@dataclass(frozen=True)
class Encoded:
    """Pairs as tokens, and what did not fit.

    Attributes:
        rows: `prompt_ids`, `chosen_ids`, `rejected_ids` and `malicious` of each pair that is left.
        cut: answers that lost their end.
        left_out: pairs whose prompt leaves no room for an answer.
    """

    rows: list[dict[str, Any]]
    cut: int
    left_out: int


def malicious(triplets: Iterable[Triplet]) -> list[Pair]:
    """The pairs of triplets: the target's unsafe answer affirms, the chosen one rejects."""
    return [Pair(each.prompt, each.rejected, each.chosen, malicious=True) for each in triplets]


def harmless(
    exchanges: Iterable[tuple[str, str]], refusals: Sequence[str], seed: int, name: str
) -> list[Pair]:
    """The pairs of harmless exchanges: their answers affirm, refusals drawn at random reject.

    Args:
        exchanges: a user's turn and the answer to it.
        refusals: to draw from, at least one.
        seed: of the draws.
        name: of the source, so that no two draw alike.
    """
    rng = random.Random(f"{seed}/pairs/{name}")
    return [Pair(prompt, answer, rng.choice(refusals), malicious=False) for prompt, answer in exchanges]


def encode(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, length: int) -> Encoded:
    """Pairs as the chat template tells them, at most `length` tokens of prompt and answer together.

    Args:
        pairs: N.
        tokenizer: with a chat template.
        length: answers are cut at it.

    Raises:
        DataError: a pair that cannot be told; names it.
    """
    texts = [part for pair in pairs for part in _told(pair, tokenizer)]
    tokens = data.tokenized(texts, tokenizer)
    rows, cut = [], 0
    for pair, (before, chosen), (other, rejected) in zip(pairs, tokens, tokens, strict=True):
        # An answer may change how the end of its prompt is tokenized; then it begins where both still agree.
        size = min(len(before), len(other))
        answers = [(*prompt[size:], *answer) for prompt, answer in ((before, chosen), (other, rejected))]
        if (room := length - size) <= 0:
            continue
        cut += sum(len(answer) > room for answer in answers)
        chosen_ids, rejected_ids = (list(answer[:room]) for answer in answers)
        rows.append(
            {
                "prompt_ids": list(before[:size]),
                "chosen_ids": chosen_ids,
                "rejected_ids": rejected_ids,
                "malicious": pair.malicious,
            }
        )
    return Encoded(rows, cut, len(pairs) - len(rows))


def write(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write the rows of `encode` where every process finds them, and TRL has a place beside them."""
    import datasets

    shutil.rmtree(folder, ignore_errors=True)
    datasets.disable_progress_bars()  # they flash by; the workbench shows progress of its own
    datasets.Dataset.from_list(list(rows)).save_to_disk(folder)


def load(folder: Path) -> Any:
    """What `write` wrote, as a datasets.Dataset."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_from_disk(folder)


def order(sizes: Mapping[str, int], weights: Mapping[str, float], steps: int, batch: int, seed: int) -> Any:
    """Which pair stands where: every batch has of each source what its weight is worth, give or take one.

    From the first batch to any other a source is at most a pair away from its share, of two sources half a
    pair. A source is read in an order drawn anew for each time it is read through.

    Args:
        sizes: pairs of each source; they are numbered through, source after source.
        weights: of each source; they sum to 1.
        steps: batches.
        batch: pairs of a batch.
        seed: of the order.

    Returns:
        [steps, batch] int64, numbers of pairs.
    """
    names = list(sizes)
    shares = tuple(weights[name] for name in names)
    quota = Quota(batch, lambda step: shares, [None] * len(names))
    firsts = np.cumsum([0, *sizes.values()])
    made = np.empty((steps, batch), np.int64)
    given = [quota.state(step).given for step in range(steps + 1)]
    for step, (before, after) in enumerate(pairwise(given)):
        row = [
            firsts[i] + _drawn(np.arange(before[i], after[i], dtype=np.uint64), sizes[name], seed, name)
            for i, name in enumerate(names)
        ]
        mixed = np.concatenate(row).tolist()
        random.Random(f"{seed}/batch/{step}").shuffle(mixed)
        made[step] = mixed
    return made


def _drawn(places: Any, size: int, seed: int, name: str) -> Any:
    """The pairs of a source at these places of its reading, one permutation after the other."""
    rounds, inside = np.divmod(places, np.uint64(size))
    keys = np.array([key(seed, "pairs", name, int(each)) for each in rounds], np.uint64)
    return permute(inside, np.full(len(places), size, np.uint64), keys).astype(np.int64)


def _told(pair: Pair, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    try:
        return [data.parted(tokenizer, pair.prompt, answer) for answer in (pair.chosen, pair.rejected)]
    except DataError as error:
        raise DataError(f"the pair that begins {pair.prompt[:60]!r}: {error}") from error
