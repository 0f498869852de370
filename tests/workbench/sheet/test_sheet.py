"""The record: fields, round trip, opponents, expectations, and input that is wrong."""

import json
from dataclasses import replace

import pytest

from workbench import sheet
from workbench.evaluation.measurement import Measurement
from workbench.sheet.sheet import opponents

ROW = {
    *("variant", "parent", "stage", "method", "settings", "nominal_bits", "real_bits", "disk_bytes"),
    *("metrics", "seconds", "peak_memory_bytes", "tokens_per_second", "status", "warnings"),
}
METRIC = {"value", "stderr", "ci", "n", "higher_is_better", "protocol"}
COMPARISON = {"variant", "against", "metric", "difference", "ci", "p", "p_holm", "verdict", "sentence"}


def test_the_record_has_exactly_the_agreed_fields(example):
    record = json.loads(json.dumps(example.to_json(), allow_nan=False))
    assert set(record) == {"schema", "recipe", "rows", "comparisons"}
    assert (record["schema"], record["recipe"]) == ("workbench.sheet/1", "quickstart")
    assert all(set(row) == ROW for row in record["rows"])
    assert all(set(metric) == METRIC for row in record["rows"] for metric in row["metrics"].values())
    assert all(set(comparison) == COMPARISON for comparison in record["comparisons"])


def test_the_record_reads_back_and_says_the_same(example):
    record = json.loads(json.dumps(example.to_json()))
    assert sheet.Sheet.from_json(record).to_json() == record
    with pytest.raises(ValueError, match="schema"):
        sheet.Sheet.from_json({**record, "schema": "workbench.sheet/2"})


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


def test_expectations_that_are_met_say_nothing(example):
    assert sheet.check_expectations(example, {"base.retained.facts.acc": (0.9, 0.92)}) == []


def test_expectations_that_are_missed_say_what_was_found(example):
    failures = sheet.check_expectations(
        example, {"base.retained.facts.acc": (0.95, 1.0), "bose.retained.facts.acc": (0, 1)}
    )
    assert failures[0] == "base.retained.facts.acc is 0.91, expected 0.95 to 1"
    assert failures[1].startswith("bose.retained.facts.acc: nothing was measured under this name")
    assert "cpt-full.new.facts.acc" in failures[1]


def test_expectations_find_variants_and_tasks_with_dots(rows):
    dotted = replace(rows[0].measurements[0], task="facts.v2")
    built = sheet.build("r", [replace(rows[0], variant="base-0.5", measurements=[dotted])], seed=0)
    assert sheet.check_expectations(built, {"base-0.5.new.facts.v2.acc": (0.2, 0.3)}) == []


def test_bits_per_byte_are_not_compared_where_the_perplexity_of_the_text_is(example) -> None:
    compared = {found.metric for found in example.comparisons}
    assert "language.base.perplexity" in compared
    assert not [metric for metric in compared if metric.endswith("bits_per_byte")]
    assert any(metric.endswith("bits_per_byte") for metric in example.metric_keys())
