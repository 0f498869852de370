"""How well a guard judges, against labels: unsafe is the positive class, and missing verdicts are counted.

F1 and the false positive rate FPR = FP / (FP + TN) are those of a threshold; AUPRC, the average precision,
is of all thresholds. A scorer that guesses has an AUPRC of the prevalence, so that it is not comparable
between sets, or categories, of different prevalence (Inan et al., arXiv 2312.06674).

Letters: n texts, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, confusion_matrix

from workbench.safety.guards.protocol import UNSAFE_THRESHOLD


@dataclass(frozen=True)
class GuardMetrics:
    """A guard against labels; a rate of nothing is None.

    Attributes:
        n: rows with a verdict, which all other figures are of, except `missing`.
        missing: rows without one.
        prevalence: share of unsafe labels.
        f1: harmonic mean of precision and recall.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        false_positive_rate: FP / (FP + TN).
        auprc: average precision.
    """

    n: int
    missing: int
    prevalence: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    false_positive_rate: float | None
    auprc: float | None


def guard_metrics(
    scores: Sequence[float | None], labels: Sequence[bool], threshold: float = UNSAFE_THRESHOLD
) -> GuardMetrics:
    """Compare a guard's scores with labels.

    Args:
        scores: probability of unsafe of each text; None where it is missing.
        labels: whether the text is unsafe.
        threshold: probability above which a text counts as judged unsafe.

    Raises:
        ValueError: the two have different lengths.
    """
    judged = [(score, label) for score, label in zip(scores, labels, strict=True) if score is not None]
    score = np.array([score for score, _ in judged], dtype=np.float64)
    label = np.array([label for _, label in judged], dtype=bool)
    tn, fp, fn, tp = (0, 0, 0, 0)
    if judged:
        tn, fp, fn, tp = map(int, confusion_matrix(label, score > threshold, labels=[False, True]).ravel())
    return GuardMetrics(
        n=len(judged),
        missing=len(scores) - len(judged),
        prevalence=_rate(tp + fn, len(judged)),
        f1=_rate(2 * tp, 2 * tp + fp + fn),
        precision=_rate(tp, tp + fp),
        recall=_rate(tp, tp + fn),
        false_positive_rate=_rate(fp, fp + tn),
        auprc=_auprc(label, score),
    )


def auprc_by_category(
    scores: ArrayLike, labels: ArrayLike, against: Literal["all", "benign"] = "all"
) -> list[float | None]:
    """Average precision of each category's own score.

    Args:
        scores: [n, C] probabilities.
        labels: [n, C], whether the text has the hazard.
        against: whom the texts of a category are told from: `all` others, or only those of no category
            (`benign`), which leaves out the hard ones and flatters the guard.

    Returns:
        C values; None for a category that no text has.

    Source: arXiv 2312.06674, 1-vs-all and 1-vs-benign; its max-all is `guard_metrics` of
    the largest score of each row.
    """
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    benign = ~label.any(axis=1)  # [n]
    found = []
    for column in range(label.shape[1]):
        rows = np.ones_like(benign) if against == "all" else benign | label[:, column]
        found.append(_auprc(label[rows, column], score[rows, column]))
    return found


def _auprc(label: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    return float(average_precision_score(label, score)) if label.any() else None


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
