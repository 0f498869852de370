"""The rule of the status column, clause by clause."""

from dataclasses import replace

import pytest

from workbench.sheet.compare import Comparison
from workbench.sheet.sheet import Metric, Row
from workbench.sheet.statistics import Interval
from workbench.sheet.status import ancestors, judge, origin


def row(variant, parent=None, bits=None, **metrics):
    return Row(variant, parent, "s", "m", {}, bits, bits, 1, metrics, 1.0, 1, None, "sound", [])


def perplexity(value, protocol="p"):
    return Metric(value, 0.1, None, 64, False, protocol)


def accuracy(value, chance=0.25):
    return Metric(value, 0.01, Interval(value - 0.03, value + 0.03), 900, True, "p", chance)


def status(subject, *others, worse=()):
    rows = {one.variant: one for one in (*others, subject)}
    found = [Comparison(subject.variant, subject.parent, key, -1.0, None, 0, 0, "worse", "") for key in worse]
    return judge(subject, rows, found)


def texts(old, new):
    return {"language.old.perplexity": perplexity(old), "language.new.perplexity": perplexity(new)}


def test_the_first_row_is_sound():
    assert status(row("base", **texts(3, 300))) == "sound"


@pytest.mark.parametrize(("ratio", "expected"), [(9.9, "sound"), (10.1, "collapsed")])
def test_ten_times_the_perplexity_is_a_collapse(ratio, expected):
    base = row("base", **texts(3, 300))
    assert status(row("w2", "base", 2, **texts(3 * ratio, 300)), base) == expected


def test_the_best_ancestor_counts_and_not_the_worst():
    base, cpt = row("base", **texts(3, 300)), row("cpt", "base", **texts(3, 4))
    assert status(row("w2", "cpt", 2, **texts(3, 200)), base, cpt) == "collapsed"


def test_slow_decay_over_a_chain_is_a_collapse():
    rows = [row("a", **texts(3, 3)), row("b", "a", **texts(12, 12))]
    assert status(row("c", "b", 4, **texts(40, 12)), *rows) == "collapsed"
    assert [one.variant for one in ancestors(rows[1], {one.variant: one for one in rows})] == ["a"]


def test_training_may_trade_one_text_for_another():
    base = row("base", **texts(3, 300))
    assert status(row("cpt", "base", **texts(60, 4)), base) == "sound"
    assert status(row("cpt", "base", **texts(60, 4000)), base) == "collapsed"


def test_perplexities_of_other_protocols_say_nothing():
    base = row("base", **{"language.old.perplexity": perplexity(3, "short windows")})
    assert status(row("w2", "base", 2, **{"language.old.perplexity": perplexity(90)}), base) == "sound"


def test_all_at_chance_is_a_collapse_only_if_that_is_a_fall():
    good = row("good", **{"retained.facts.acc": accuracy(0.9), "new.facts.acc": accuracy(0.9)})
    lost = {"retained.facts.acc": accuracy(0.26), "new.facts.acc": accuracy(0.24)}
    half = {"retained.facts.acc": accuracy(0.26), "new.facts.acc": accuracy(0.6)}
    unknown = {"retained.facts.acc": accuracy(0.26, chance=None)}
    fell = ["new.facts.acc"]
    assert status(row("w2", "good", 2, **lost), good, worse=fell) == "collapsed"
    assert status(row("w2", "good", 2, **lost), good) == "sound"  # too few questions to tell them apart
    assert status(row("w2", "good", 2, **half), good, worse=fell) == "degraded"
    assert status(row("w2", "good", 2, **unknown), good) == "sound"
    assert status(row("w2", "poor", 2, **lost), row("poor", **lost)) == "sound"


def test_a_score_that_is_not_finite_is_a_collapse():
    assert status(row("base", **{"language.old.perplexity": perplexity(None)})) == "collapsed"


def test_worse_degrades_quantized_rows_anywhere_and_trained_rows_where_they_should_hold():
    base = row("base")
    assert status(row("w4", "base", 4), base, worse=["language.new.perplexity"]) == "degraded"
    assert status(row("cpt", "base"), base, worse=["language.old.perplexity"]) == "sound"
    assert status(row("cpt", "base"), base, worse=["retained.facts.acc"]) == "degraded"
    assert status(row("cpt", "base"), base, worse=["safety.attacks.rate"]) == "degraded"


def test_a_merged_row_is_held_against_what_its_trained_model_was_made_from():
    base, trained = row("base"), row("cpt-full", "base")
    merged = replace(row("merge-0.5", "cpt-full"), method="merge")
    back = replace(row("back", "merge-0.5"), method="merge-back")
    rows = {one.variant: one for one in (base, trained, merged, back)}
    assert [getattr(origin(one, rows), "variant", None) for one in rows.values()] == [None, *["base"] * 3]


def test_merging_back_does_not_make_up_for_what_training_lost(race):
    assert race.row("merge-linear-0.8").status == "degraded"
