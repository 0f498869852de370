"""From measurements to rows: intervals, opponents, statuses, and input that is wrong."""

import json
from dataclasses import replace

import pytest

from workbench import sheet
from workbench.evaluation.measurement import Measurement
from workbench.sheet.assembly import opponents


def test_every_interval_holds_its_score(example):
    for row in example.rows:
        for metric in row.metrics.values():
            assert metric.ci.low <= metric.value <= metric.ci.high
    for comparison in example.comparisons:
        assert comparison.ci.low <= comparison.difference <= comparison.ci.high
        assert comparison.p <= comparison.p_holm <= 1


def test_the_same_seed_gives_the_same_sheet(rows, example):
    assert sheet.build("quickstart", rows, seed=1).to_json() == example.to_json()


def test_rows_meet_their_parent_the_first_row_and_methods_at_equal_bits(example):
    row = {one.variant: opponents(one, example.rows) for one in example.rows}
    assert row["base"] == []
    assert row["cpt-replay"] == ["base"]
    assert row["rtn-w4"] == ["cpt-replay", "base"]
    assert row["gptq-w4"] == ["cpt-replay", "base", "rtn-w4"]


def test_the_invented_run_is_judged_as_it_was_made(example):
    statuses = {row.variant: row.status for row in example.rows}
    assert statuses["rtn-w8"] == statuses["gptq-w8"] == "sound"
    assert statuses["cpt-full"] == statuses["rtn-w4"] == "degraded"
    assert statuses["rtn-w2"] == "collapsed"
    verdict = example.against("gptq-w3", "rtn-w3")["language.base.perplexity"].verdict
    assert verdict == "better"


def test_what_cannot_be_paired_is_a_warning_and_not_a_comparison(rows):
    child = rows[1]
    other = replace(child.measurements[0], protocol="another protocol")
    built = sheet.build("r", [rows[0], replace(child, measurements=[other])], seed=0)
    assert built.comparisons == []
    assert any("new.facts.acc is not compared with base" in text for text in built.rows[1].warnings)


def test_a_parent_that_is_no_row_is_said(rows):
    built = sheet.build("r", [rows[0], rows[3]], seed=0)
    assert any("its parent cpt-replay" in text for text in built.rows[1].warnings)
    assert {comparison.against for comparison in built.comparisons} == {"base"}


def test_scores_beyond_the_finite_numbers_stay_json(rows):
    infinite = Measurement(
        "language", "base", "perplexity", {"a": (1e9, 1.0), "b": (1e9, 1.0)}, "perplexity", False, "p"
    )
    built = sheet.build("r", [replace(rows[0], measurements=[infinite])], seed=0)
    assert built.rows[0].status == "collapsed"
    record = json.loads(json.dumps(built.to_json(), allow_nan=False))
    assert record["rows"][0]["metrics"]["language.base.perplexity"]["value"] is None
    assert built.rows[0].warnings == ["language.base.perplexity is not a finite number"]


def test_rows_that_contradict_each_other_are_refused(rows):
    with pytest.raises(ValueError, match="'base' appears twice"):
        sheet.build("r", [rows[0], rows[0]], seed=0)
    with pytest.raises(ValueError, match="comes before its parent 'base'"):
        sheet.build("r", [rows[1], rows[0]], seed=0)
    with pytest.raises(ValueError, match="measures a metric twice"):
        sheet.build("r", [replace(rows[0], measurements=rows[0].measurements[:1] * 2)], seed=0)


def test_bits_per_byte_are_not_compared_where_the_perplexity_of_the_text_is(example) -> None:
    compared = {found.metric for found in example.comparisons}
    assert "language.base.perplexity" in compared
    assert not [metric for metric in compared if metric.endswith("bits_per_byte")]
    assert any(metric.endswith("bits_per_byte") for metric in example.metric_keys())


def test_scores_under_several_seeds_have_an_interval_of_their_own(race):
    metric = race.row("cpt-lora").metrics["new.facts.acc"]
    assert len(metric.seeds) == 3
    assert metric.seeds_ci.low < sum(metric.seeds) / 3 < metric.seeds_ci.high
    assert metric.seeds_ci != metric.ci
    assert metric.n == 1200


def test_one_seed_has_no_interval_over_seeds_and_a_burst_seed_is_none(rows):
    once = replace(rows[0], seeds={"new.facts.acc": [0.26]})
    burst = replace(rows[1], seeds={"new.facts.acc": [0.9, float("inf"), 0.8]})
    built = sheet.build("r", [once, burst], seed=0)
    metrics = [row.metrics["new.facts.acc"] for row in built.rows]
    assert [metric.seeds_ci for metric in metrics] == [None, None]
    assert metrics[1].seeds == [0.9, None, 0.8]
    with pytest.raises(ValueError, match=r"seeds of what it does not measure: \['new.fact.acc'\]"):
        sheet.build("r", [replace(rows[0], seeds={"new.fact.acc": [0.1]})], seed=0)


def test_merged_rows_meet_their_parent_and_what_it_was_made_from(race, rows):
    assert opponents(race.row("merge-linear-0.5"), race.rows) == ["cpt-full", "base"]
    first = replace(rows[0], variant="other")
    later = [replace(row, parent="base") for row in rows[1:2]]
    merged = replace(rows[2], variant="merged", parent="cpt-full", method="merge")
    built = sheet.build("r", [first, rows[0], *later, merged], seed=0)
    assert opponents(built.rows[-1], built.rows) == ["cpt-full", "base", "other"]


def test_a_row_named_by_the_recipe_is_one_more_opponent(rows):
    named = [replace(row, against="cpt-full") if row.variant == "cpt-replay" else row for row in rows]
    built = sheet.build("quickstart", named, seed=1)
    assert opponents(built.row("cpt-replay"), built.rows) == ["base", "cpt-full"]
    assert built.against("cpt-replay", "cpt-full")["retained.facts.acc"].verdict == "better"
