"""The model gives exactly what the equations say, and every distribution is one."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest

from workbench.data.ngram import BEGIN, END, FALLBACK_DISCOUNT, UNKNOWN, NgramModel, fit
from workbench.data.words import words

TEXTS = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a cat and a dog",
    "the cat saw the dog on the mat",
    "sat",
]


class BruteForce:
    """Interpolated Kneser-Ney over dictionaries of words, straight from the equations."""

    def __init__(self, texts: list[str], n: int) -> None:
        self.n = n
        self.vocabulary = {word for text in texts for word in text.split()} | {"</s>", "<unk>"}
        self.grams = [Counter[tuple[str, ...]]() for _ in range(n + 1)]
        for text in texts:
            marked = ["<s>"] * (n - 1) + [*text.split(), "</s>"]
            for k in range(1, n + 1):
                for end in range(n - 1, len(marked)):
                    self.grams[k][tuple(marked[end - k + 1 : end + 1])] += 1

    def counts(self, k: int) -> Counter[tuple[str, ...]]:
        return self.grams[k] if k == self.n else Counter(gram[1:] for gram in self.grams[k + 1])

    def probability(self, word: str, context: tuple[str, ...]) -> float:
        lower = self.probability(word, context[1:]) if context else 1 / len(self.vocabulary)
        counts = self.counts(len(context) + 1)
        after = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context}
        if not after:
            return lower
        once, twice = (list(counts.values()).count(times) for times in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else FALLBACK_DISCOUNT
        total = sum(after.values())
        own = max(after.get(word, 0) - discount, 0) / total
        return own + discount * len(after) / total * lower


def distribution(model: NgramModel, context: list[int]) -> np.ndarray:
    """P of every number but the mark of the beginning, after the numbers `context`."""
    everything = [UNKNOWN, END, *range(3, 3 + len(model.vocabulary))]
    numbers = np.array([[*context, word] for word in everything]).ravel()
    places = np.arange(len(everything)) * (len(context) + 1) + len(context)
    return model.probabilities(numbers, places)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_agrees_with_the_equations(order: int) -> None:
    model, truth = fit(TEXTS, order), BruteForce(TEXTS, order)
    for text in [*TEXTS, "the mat sat on a zebra", "zebra zebra", "dog the on"]:
        marked = ["<s>"] * (order - 1) + [w if w in truth.vocabulary else "<unk>" for w in text.split()]
        nats = [
            -math.log(truth.probability(word, tuple([*marked, "</s>"][end - order + 1 : end])))
            for end, word in enumerate([*marked, "</s>"])
            if end >= order - 1
        ]
        assert model.perplexity(words([text]))[0] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one(order: int) -> None:
    model = fit(TEXTS, order)
    numbers = [UNKNOWN, BEGIN, 3, 4, 5, len(model.vocabulary) + 2]
    for context in itertools.product(numbers, repeat=order - 1):
        probability = distribution(model, list(context))
        assert probability.min() > 0
        assert probability.sum() == pytest.approx(1, rel=1e-12)


def test_perplexity_does_not_depend_on_the_batch() -> None:
    model = fit(TEXTS, 3)
    together = model.perplexity(words([*TEXTS, "", "..."]))
    apart = np.concatenate([model.perplexity(words([text])) for text in [*TEXTS, "", "..."]])
    assert (together == apart).all()


def test_prefers_text_like_its_own_to_its_words_in_disorder(shared_data) -> None:  # type: ignore[no-untyped-def]
    lines = (shared_data / "text/dutch_statenvertaling_ot.txt").read_text(encoding="utf-8").splitlines()
    model = fit(lines[:20000], 3)
    held_out = lines[20000:20500]
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(re.findall(r"\w+", line))) for line in held_out]
    ordered, disordered = (model.perplexity(words(texts)) for texts in (held_out, shuffled))
    assert (ordered < disordered).mean() > 0.98
    assert (words(held_out).counts == words(shuffled).counts).all()
