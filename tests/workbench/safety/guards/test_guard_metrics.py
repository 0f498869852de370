"""A guard's measures: by hand on small tables, against scikit-learn on large ones; missing is not safe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from workbench.evaluation.measurement import Measurement
from workbench.safety.guards.guard_metrics import Judged, measured
from workbench.safety.moderation import Text


def judged(
    scores: Sequence[float | None], labels: Sequence[bool], threshold: float = 0.5, topic: str = "hats"
) -> list[Judged]:
    """Texts with one label."""
    texts = [
        Text(id=str(i), base_id=str(i // 2), prompt="p", labels={topic: label}, topics=(topic,))
        for i, label in enumerate(labels)
    ]
    return [
        Judged(text, score, None if score is None else score > threshold)
        for text, score in zip(texts, scores, strict=True)
    ]


def values(rows: Sequence[Judged]) -> dict[str, float]:
    found = measured("moderation", rows, "p")
    assert len({each.key for each in found}) == len(found)
    return {each.key.removeprefix("safety."): each.value for each in found}


def test_by_hand() -> None:
    """TP 2, FN 1, FP 1, TN 4; false alarms are of the benign texts, not of the unsafe ones."""
    found = values(
        judged(
            [0.9, 0.8, 0.1, 0.7, 0.4, 0.3, 0.2, 0.5], [True, True, True, False, False, False, False, False]
        )
    )
    assert found["moderation.false_alarms"] == pytest.approx(1 / 5)
    assert found["moderation.precision"] == found["moderation.recall"] == pytest.approx(2 / 3)
    assert found["moderation.f1"] == pytest.approx(2 / 3)
    assert found["moderation.auprc"] == pytest.approx((1 + 1 + 3 / 8) / 3)
    assert found["moderation_flagged.hats"] == found["moderation.recall"]
    assert found["moderation_false_alarms.hats"] == found["moderation.false_alarms"]
    assert found["moderation.missing"] == 0 and "moderation_auprc.hats" not in found


def test_all_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = np.clip(0.3 * labels + rng.random(200), 0, 1)
    found, said = values(judged(scores.tolist(), labels.tolist(), 0.6)), scores > 0.6
    assert found["moderation.f1"] == pytest.approx(f1_score(labels, said))
    assert found["moderation.precision"] == pytest.approx(precision_score(labels, said))
    assert found["moderation.recall"] == pytest.approx(recall_score(labels, said))
    assert found["moderation.auprc"] == pytest.approx(average_precision_score(labels, scores))


def test_missing_verdicts_are_counted_and_change_no_rate() -> None:
    scores, labels = [0.9, 0.2, 0.6], [True, False, False]
    whole, gappy = (
        values(judged(scores, labels)),
        values(judged([*scores, None, None], [*labels, True, False])),
    )
    assert gappy.pop("moderation.missing") == pytest.approx(2 / 5) and whole.pop("moderation.missing") == 0
    assert gappy == whole


def test_rows_keep_the_same_items_whatever_they_say() -> None:
    """So that two guards can be compared text by text."""
    labels = [True, False, True]
    one, other = (measured("moderation", judged(said, labels), "p") for said in ([1, 0, 1], [None, 1, 0]))
    assert [(a.key, a.items.keys(), a.clusters) for a in one] == [
        (b.key, b.items.keys(), b.clusters) for b in other
    ]
    assert one[0].clusters == {"0": "0", "1": "0", "2": "1"}


def test_what_no_text_speaks_to_is_left_out() -> None:
    unsafe, benign = values(judged([0.9, 0.1], [True, True])), values(judged([0.9, 0.1], [False, False]))
    assert unsafe["moderation.recall"] == 0.5 and "moderation.false_alarms" not in unsafe
    assert benign["moderation.false_alarms"] == 0.5 and "moderation.recall" not in benign
    assert "moderation.auprc" not in {**unsafe, **benign}
    assert math.isnan(values(judged([None, None], [True, False]))["moderation.f1"])


def test_guessing_scores_the_prevalence() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(20_000) < 0.2
    found = values(judged(rng.random(20_000).tolist(), labels.tolist()))
    assert found["moderation.auprc"] == pytest.approx(labels.mean(), abs=0.02)


def test_each_category_against_all_others_by_its_own_score() -> None:
    """A guard that knows harm but not which; a text without the label stands aside of its category."""
    labels = [{"a b": True, "c": False}, {"a b": False, "c": True}, {"a b": False, "c": False}, {"c": True}]
    rows = [
        Judged(
            Text(id=str(i), base_id=str(i), prompt="p", labels=each),
            0.9,
            True,
            {"a b": 0.9 if any(each.values()) else 0.1},
        )
        for i, each in enumerate(labels)
    ]
    rows[2] = Judged(rows[2].text, None, None)  # no verdict, so no score either
    found = {each.key: each for each in measured("m", rows, "p")}
    own: Measurement = found["safety.m_auprc.a_b"]
    assert own.value == pytest.approx(0.5)
    assert dict(own.items) == {"0": (0.9, 1.0), "1": (0.9, -1.0), "2": (0.0, 0.0)}
    assert found["safety.m_flagged.c"].items.keys() == {"1", "3"}
    assert "safety.m_auprc.c" not in found
