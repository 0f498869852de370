"""Is it worth it? What small runs say about a continual pre-training before it is paid for.

Three things are measured: how well the model knows each source already, and how many tokens its
tokenizer makes of it; what a hundredth of the tokens does to new and old text at several shares of old
text; and how the loss falls with the number of tokens, at the best of these shares.

The share is that with the least sum of changes, a nat of new text weighing as much as one of old. The
budget follows from L(t) = E + A t^-beta (Hestness et al., arXiv 1712.00409): three runs of T/4, T/2 and
T tokens gain g_1 and g_2 in their two doublings, q = g_2 / g_1 = 2^-beta, and the k-th doubling from
there gains g_2 q^k. Uncertainty comes from drawing the held-out windows anew (Efron's bootstrap, the same
windows for all runs); that of another seed, or of another scale, is not in it.

Letters: B draws, R runs, P parts of the text, W held-out windows of a part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from workbench.recipe.schema import Recipe
from workbench.run.surrogate import Losses, Part, Surrogates
from workbench.storage import Store

RATIOS = (0.0, 0.1, 0.3)
DRAWS = 2000
FAINT = 0.01  # nats a token: a doubling that gains less is not worth its tokens
SHORTEST = 1e-3  # smallest q: a gain that has gone all at once
FARTHEST = 10  # times the recipe's tokens: beyond, a budget is only called larger

Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and the 95 % interval of its draws."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Draws) -> Estimate:
        """From draws [1 + B], of which the first is of the text as it is."""
        low, high = np.quantile(draws[1:], (0.025, 0.975), method="nearest")
        return cls(float(draws[0]), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class Advice:
    """What the small runs recommend.

    Attributes:
        ratio: share of old text.
        sure: share of the draws in which that share is the best.
        new: change of new text at that share, in nats a token; below 0 is a gain.
        old: change of old text.
        budget: tokens after which a doubling gains less than `FAINT`; may be infinite.
        gain: change of new text expected at the recipe's tokens.
    """

    ratio: float
    sure: float
    new: Estimate
    old: Estimate
    budget: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Worth:
    """Everything that the probe found out.

    Attributes:
        parts: the text.
        base: what the model makes of each part before it is trained.
        changes: for each share of old text, the changes of new and of old text.
        tokens: of a small run.
        planned: tokens of the recipe's stage.
        advice: what follows from it.
    """

    parts: list[Part]
    base: list[Losses]
    changes: dict[float, tuple[Estimate, Estimate]]
    tokens: int
    planned: int
    advice: Advice


def probe(recipe: Recipe, store: Store) -> Worth:
    """Make the small runs, or find them in the store, and draw the conclusions.

    Raises:
        RecipeError: no cpt stage, or no old text to replay.
        RunError: the model that the stage goes on from has not been made.
        DataError: a source of which nothing can be held out.
    """
    small = Surrogates(recipe, store)
    base = small.base()
    runs = [base, *(small.trained(ratio, small.steps) for ratio in RATIOS)]
    losses = {old: resampled(small.parts, runs, old=old, seed=recipe.seed) for old in (False, True)}
    new, old = (losses[kind][:, 1:] - losses[kind][:, :1] for kind in (False, True))  # [1 + B, R]
    best = int((new + old)[0].argmin())
    shorter = [small.trained(RATIOS[best], max(1, small.steps // part)) for part in (4, 2)]
    course = resampled(small.parts, [*shorter, runs[1 + best]], old=False, seed=recipe.seed)
    budget, further = extrapolated(course, small.tokens(small.steps), small.stage.tokens)
    advice = Advice(
        ratio=RATIOS[best],
        sure=float(((new + old)[1:].argmin(1) == best).mean()),
        new=Estimate.of(new[:, best]),
        old=Estimate.of(old[:, best]),
        budget=Estimate.of(budget),
        gain=Estimate.of(new[:, best] - further),
    )
    changes = {ratio: (Estimate.of(new[:, i]), Estimate.of(old[:, i])) for i, ratio in enumerate(RATIOS)}
    return Worth(small.parts, base, changes, small.tokens(small.steps), small.stage.tokens, advice)


def resampled(parts: list[Part], runs: list[list[Losses]], *, old: bool, seed: int) -> Draws:
    """Losses of new or of old text under several models, as measured and under windows drawn anew.

    Args:
        parts: the text, P parts.
        runs: [R][P], what each model makes of each part.
        old: of old text, else of new.
        seed: of the draws; windows are drawn alike for all models.

    Returns:
        [1 + DRAWS, R] nats a token, mean over the parts by their weights; the first row is as measured.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((1 + DRAWS, len(runs)))
    for place, part in enumerate(parts):
        if part.old == old:
            windows = len(runs[0][place].nats)
            drawn = rng.multinomial(
                windows, np.full(windows, 1 / windows), DRAWS
            )  # [B, W] times each is drawn
            times: Draws = np.concatenate((np.ones((1, windows)), drawn)).astype(np.float64)
            nats = np.stack([run[place].nats for run in runs])  # [R, W]
            total += part.weight * (times @ nats.T) / (times @ runs[0][place].tokens)[:, None]
    return total


def extrapolated(course: Draws, tokens: int, planned: int) -> tuple[Draws, Draws]:
    """The power law through the losses after a quarter, a half and all of the tokens of a small run.

    Args:
        course: [B, 3] nats a token.
        tokens: of the whole small run.
        planned: of the stage that it stands for.

    Returns:
        [B] tokens after which a doubling gains less than `FAINT`, infinite beyond `FARTHEST` times those
        planned; and [B] nats that are gained from `tokens` to `planned`.
    """
    first, second = course[:, 0] - course[:, 1], course[:, 1] - course[:, 2]
    # A gain that does not shrink follows no power law: it is taken to stay as it is, for ever.
    q = np.clip(np.divide(second, first, out=np.ones_like(first), where=first > 0), SHORTEST, 1.0)
    gain = np.maximum(second, 0.0)
    below = np.minimum(np.log(FAINT / np.maximum(gain, FAINT)), 0.0)  # log of how much gains must shrink
    doublings = np.where(
        below == 0, 0.0, np.divide(below, np.log(q), out=np.full_like(q, np.inf), where=q < 1)
    )
    farthest = math.log2(FARTHEST * planned / tokens)
    budget = np.where(doublings > farthest, np.inf, tokens * 2.0 ** np.minimum(doublings, farthest))
    n = math.log2(planned / tokens)
    series = np.divide(q * (1 - q**n), 1 - q, out=np.full_like(q, n), where=q < 1)
    return budget, gain * series


def tables(worth: Worth) -> list[Table]:
    """The findings for people: by source, and by share of old text."""
    known = Table(
        "source", box=box.SIMPLE, title="what the model makes of it now, on held-out text", pad_edge=False
    )
    for column in ("", "perplexity", "bits/byte", "tokens/word", "bytes/token"):
        known.add_column(column, justify="right" if column else "left", no_wrap=True)
    for part, losses in zip(worth.parts, worth.base, strict=True):
        nats = losses.nats.sum()
        known.add_row(
            part.name,
            "old" if part.old else "new",
            f"{math.exp(min(nats / losses.tokens.sum(), 700)):.3g}",
            f"{nats / losses.sizes.sum() / math.log(2):.3f}",
            f"{part.held.num_tokens / max(part.words, 1):.2f}",
            f"{part.held.num_bytes / part.held.num_tokens:.2f}",
        )
    ratios = Table(
        "old text",
        box=box.SIMPLE,
        pad_edge=False,
        title=f"change of the loss by {_count(worth.tokens)} of {_count(worth.planned)} tokens, nats a token",
        caption="intervals of 95 % over held-out windows; one seed",
    )
    for column in ("new text", "old text", "both"):
        ratios.add_column(column, justify="right", no_wrap=True)
    for ratio, (new, old) in worth.changes.items():
        ratios.add_row(f"{ratio:.0%}", str(new), str(old), f"{new.value + old.value:+.3f}")
    return [known, ratios]


def sentence(worth: Worth) -> str:
    """The recommendation, and how sure it is."""
    advice = worth.advice
    if advice.new.high >= 0:
        return (
            f"Not worth it as it stands: {_count(worth.tokens)} tokens changed the loss of new text by "
            f"{advice.new}, which is no gain beyond doubt; try another learning rate or other text before "
            "the whole budget."
        )
    share = f"{advice.ratio:.0%} of old text" if advice.ratio else "no old text"
    ratio = (
        f"Mix in {share} (the best share in {advice.sure:.0%} of resamples of the "
        f"held-out windows): at this scale new text gains {-advice.new.value:.3f} nats a token and old text "
        f"{'loses' if advice.old.value > 0 else 'gains'} {abs(advice.old.value):.3f}."
    )
    if advice.ratio == max(RATIOS):
        ratio += " It is the largest share that was tried; a larger one may be better still."
    if math.isinf(advice.budget.value):
        return ratio + (
            f" Up to {_count(worth.tokens)} tokens the gain of a doubling does not shrink fast enough to "
            f"foresee its end within {FARTHEST} times the {_count(worth.planned)} that the recipe plans: by "
            "this measure that is not too many, and one seed says no more."
        )
    return ratio + (
        f" A doubling of the tokens gains less than {FAINT} nats from about {_tokens(advice.budget.value)} "
        f"on ({_tokens(advice.budget.low)} to {_tokens(advice.budget.high)}); the recipe plans "
        f"{_count(worth.planned)}, where new text should have changed by {advice.gain}. This "
        f"carries a power law over {math.log2(worth.planned / worth.tokens):.1f} doublings, from one seed: "
        "take it for an order of magnitude, and expect old text to lose more than it has by now."
    )


def _tokens(count: float) -> str:
    return "more than can be foreseen" if math.isinf(count) else _count(count)


def _count(count: float) -> str:
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g}{unit}"
    return f"{count:.0f}"
