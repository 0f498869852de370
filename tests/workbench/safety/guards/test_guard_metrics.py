"""Guard metrics: by hand on small tables, against scikit-learn on large ones, and missing is not safe."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from workbench.safety.guards import auprc_by_category, guard_metrics


def test_by_hand() -> None:
    """TP 2, FN 1, FP 1, TN 4; FPR is of the safe texts, not of the unsafe ones."""
    scores = [0.9, 0.8, 0.1, 0.7, 0.4, 0.3, 0.2, 0.5]
    labels = [True, True, True, False, False, False, False, False]
    found = guard_metrics(scores, labels)
    assert found.false_positive_rate == pytest.approx(1 / 5)
    assert found.precision == pytest.approx(2 / 3) and found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(2 / 3) and found.prevalence == pytest.approx(3 / 8)
    assert found.auprc == pytest.approx((1 + 1 + 3 / 8) / 3)


def test_f1_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = np.clip(0.3 * labels + rng.random(200), 0, 1)
    found = guard_metrics(scores.tolist(), labels.tolist(), threshold=0.6)
    assert found.f1 == pytest.approx(f1_score(labels, scores > 0.6))


def test_missing_verdicts_are_counted_and_change_no_rate() -> None:
    scores, labels = [0.9, 0.2, 0.6], [True, False, False]
    whole = guard_metrics(scores, labels)
    gappy = guard_metrics([*scores, None, None], [*labels, True, False])
    assert (gappy.n, gappy.missing) == (3, 2)
    assert (gappy.f1, gappy.false_positive_rate, gappy.auprc) == (
        whole.f1,
        whole.false_positive_rate,
        whole.auprc,
    )


def test_rate_of_nothing_is_none() -> None:
    nothing = guard_metrics([None], [True])
    assert nothing.n == 0 and nothing.f1 is None and nothing.auprc is None and nothing.prevalence is None
    unsafe_only = guard_metrics([0.9, 0.1], [True, True])
    assert unsafe_only.false_positive_rate is None and unsafe_only.recall == 0.5
    safe_only = guard_metrics([0.9, 0.1], [False, False])
    assert safe_only.recall is None and safe_only.auprc is None and safe_only.false_positive_rate == 0.5
    with pytest.raises(ValueError, match="zip"):
        guard_metrics([0.5], [True, False])


def test_guessing_scores_the_prevalence() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(20_000) < 0.2
    found = guard_metrics(rng.random(20_000).tolist(), labels.tolist())
    assert found.auprc == pytest.approx(found.prevalence, abs=0.02)


def test_leaving_out_other_hazards_flatters() -> None:
    """A score that knows harm but not which: 1-vs-benign is perfect, 1-vs-all is not."""
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])
    scores = np.repeat(labels.max(1, keepdims=True), 3, axis=1) * 0.8 + 0.1
    assert auprc_by_category(scores, labels, "benign") == [1.0, 1.0, None]
    assert auprc_by_category(scores, labels) == [pytest.approx(0.5), pytest.approx(0.5), None]
