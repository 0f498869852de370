"""Paired comparisons of rows on the same items, and what may be concluded from them.

Verdict, in this order:
    equivalent   the whole 95 % interval of the difference lies within the margin of equivalence:
                 2 points for shares (accuracy, attack success), a relative change of 1 % else
    better       p after Holm's correction, over all comparisons of the row, is below 0.05
    worse        likewise
    no evidence  neither: the items are too few to tell
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from workbench.sheet import statistics, wording
from workbench.sheet.samples import Sample
from workbench.sheet.statistics import Array, Interval
from workbench.sheet.wording import Unit

Verdict = Literal["better", "worse", "equivalent", "no evidence"]

MARGIN: dict[Unit, float] = {"share": 0.02, "bits": 0.01, "ratio": 0.01}
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """One row against another on one metric; `difference` is row minus other, in the metric's unit."""

    variant: str
    against: str
    metric: str
    difference: float
    ci: Interval | None
    p: float
    p_holm: float
    verdict: Verdict
    sentence: str


def obstacle(sample: Sample, other: Sample) -> str | None:
    """Why two samples may not be compared item by item; None if they may."""
    mine, theirs = sample.measurement, other.measurement
    if mine.protocol != theirs.protocol:
        return f"protocols differ ({mine.protocol!r} and {theirs.protocol!r})"
    if mine.aggregation != theirs.aggregation or mine.higher_is_better != theirs.higher_is_better:
        return "the scores are aggregated differently"
    if sample.ids != other.ids:
        shared = len(set(sample.ids) & set(other.ids))
        return f"the items differ ({sample.n} and {other.n}, {shared} shared)"
    if sample.owners != other.owners:
        return "the items are forms of other questions"
    if mine.aggregation == "perplexity" and not np.array_equal(sample.denominators, other.denominators):
        return "perplexities of different tokenizers (token counts differ)"
    if mine.aggregation == "bits_per_byte" and not np.array_equal(sample.denominators, other.denominators):
        return "the windows of different tokenizers hold different text (byte counts differ)"
    if sample.value is None or other.value is None:
        return "a score is not finite"
    return None


@dataclass(frozen=True)
class Pair:
    """Two rows' samples of one metric, without an obstacle between them."""

    variant: str
    sample: Sample
    against: str
    other: Sample
    unit: Unit

    @property
    def scores(self) -> tuple[float, float]:
        """The row's score and the other's."""
        assert self.sample.value is not None and self.other.value is not None
        return self.sample.value, self.other.value


@dataclass(frozen=True)
class Test:
    """What the items say about a difference; intervals are None where nothing can be said.

    `ci` is in the metric's unit, `shift` in that of the margin: points for shares, else relative change.
    """

    p: float
    ci: Interval | None
    shift: Interval | None


def conclude(family: Sequence[Pair]) -> list[Comparison]:
    """Compare all pairs of one row, correct p for their number, and give each its verdict."""
    tests = [_test(pair) for pair in family]
    corrected = statistics.holm([test.p for test in tests])
    return [_comparison(*found) for found in zip(family, tests, corrected, strict=True)]


def _test(pair: Pair) -> Test:
    sample, other = pair.sample, pair.other
    if sample.draws is not None and other.draws is not None:
        return _bootstrap(sample.draws, other.draws, pair.unit, sample.clusters)
    if sample.binary and other.binary:
        mine, theirs = sample.numerators == 1, other.numerators == 1
        cells = (mine & theirs, mine & ~theirs, ~mine & theirs, ~mine & ~theirs)
        both, only_mine, only_theirs, neither = (int(np.count_nonzero(cell)) for cell in cells)
        interval = statistics.newcombe(both, only_mine, only_theirs, neither)
        return Test(statistics.mcnemar(only_mine, only_theirs), interval, interval)
    return Test(1.0, None, None)


def _bootstrap(draws: Array, other: Array, unit: Unit, clusters: int | None) -> Test:
    """Paired bootstrap: in each resample both rows saw the same items."""
    # A resample may hold no item that says something, such as no coherent answer.
    told = ~(np.isnan(draws) | np.isnan(other))
    draws, other = draws[told], other[told]
    if not (np.isfinite(draws).all() and np.isfinite(other).all()):
        return Test(statistics.bootstrap_p(np.sign(draws - other)), None, None)
    # Sums of equal items differ in the last bits when they were added in another order.
    differences = np.where(np.isclose(draws, other, rtol=1e-12, atol=0), 0.0, draws - other)
    interval = statistics.percentile_interval(differences, clusters)
    if clusters is not None and interval.low == interval.high:
        reach = statistics.wilson(0, clusters).high
        interval = Interval(max(interval.low - reach, -1.0), min(interval.high + reach, 1.0))
    relative = differences / np.abs(other) if unit != "share" else differences
    shift = interval if unit == "share" else statistics.percentile_interval(relative, clusters)
    return Test(statistics.bootstrap_p(differences, clusters), interval, shift)


def _comparison(pair: Pair, test: Test, p_holm: float) -> Comparison:
    value, reference = pair.scores
    gain = value - reference if pair.sample.measurement.higher_is_better else reference - value
    found = Comparison(
        variant=pair.variant,
        against=pair.against,
        metric=pair.sample.measurement.key,
        difference=value - reference,
        ci=test.ci,
        p=test.p,
        p_holm=p_holm,
        verdict=verdict(gain, test.shift, p_holm, pair.unit),
        sentence="",
    )
    return replace(found, sentence=_sentence(found, pair, test.shift))


def verdict(gain: float, shift: Interval | None, p_holm: float, unit: Unit) -> Verdict:
    """The rule in this file's header; `gain` is positive where the row is ahead."""
    if shift is not None and shift.within(MARGIN[unit]):
        return "equivalent"
    if p_holm < SIGNIFICANCE:
        return "better" if gain > 0 else "worse"
    return "no evidence"


def _sentence(found: Comparison, pair: Pair, interval: Interval | None) -> str:
    value, reference = pair.scores
    unit = pair.unit
    shift = wording.shift(found.difference, reference, unit)
    known = "interval unknown"
    if interval is not None:
        known = f"95 % interval {wording.span(interval.low, interval.high, unit, shift)}"
    scores = f"{wording.score(value, unit)} against {wording.score(reference, unit)}"
    of = f" in {pair.sample.clusters:,} clusters" if pair.sample.clusters is not None else ""
    moved = f"{wording.change(shift, unit)} ({known}; n = {pair.sample.n:,}{of}"
    facts = f"{wording.describe(found.metric)}: {scores}, {moved}"
    if found.verdict == "equivalent":
        bound = f"{100 * MARGIN[unit]:g} {'points' if unit == 'share' else '%'}"
        return f"{found.variant} is equivalent to {found.against} in {facts}; within ±{bound})."
    facts = f"{facts}; {wording.p_value(found.p_holm)} after Holm)"
    if found.verdict == "no evidence":
        return f"No evidence that {found.variant} differs from {found.against} in {facts}."
    return f"{found.variant} is {found.verdict} than {found.against} in {facts}."
