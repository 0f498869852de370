"""The record: fields, round trip, and expectations."""

import json
from dataclasses import replace

import pytest

from workbench import sheet

ROW = {
    *("variant", "parent", "stage", "method", "settings", "nominal_bits", "real_bits", "disk_bytes"),
    *("metrics", "seconds", "peak_memory_bytes", "tokens_per_second", "status", "warnings"),
    *("trainable_parameters", "against"),
}
METRIC = {"value", "stderr", "ci", "n", "higher_is_better", "protocol", "seeds", "seeds_ci"}
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


def test_records_from_before_seeds_and_trainable_parameters_are_read(race):
    record = race.to_json()
    for row in record["rows"]:
        del row["trainable_parameters"]
        for metric in row["metrics"].values():
            del metric["seeds"], metric["seeds_ci"]
    read = sheet.Sheet.from_json(json.loads(json.dumps(record)))
    assert {row.trainable_parameters for row in read.rows} == {None}
    metric = read.row("cpt-full").metrics["new.facts.acc"]
    assert (metric.seeds, metric.seeds_ci) == ([], None)
    assert metric.ci == race.row("cpt-full").metrics["new.facts.acc"].ci


def test_a_record_with_seeds_reads_back_and_says_the_same(race):
    record = json.loads(json.dumps(race.to_json(), allow_nan=False))
    read = sheet.Sheet.from_json(record)
    assert read.to_json() == record
    assert read.row("cpt-lora").metrics["new.facts.acc"].seeds_ci is not None
    assert read.row("cpt-lora").trainable_parameters == 88_000
