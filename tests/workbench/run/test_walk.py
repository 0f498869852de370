"""A recipe becomes rows, each made and measured once, and a sheet; what is finished is never done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from workbench import recipe, storage
from workbench.errors import RunError
from workbench.run import walk


@pytest.fixture(scope="module")
def runs(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a finished run of the tiny recipe."""
    root = tmp_path_factory.mktemp("runs")
    walk.run(recipe.load(tiny_recipe), root, "make recipe=tiny")
    return root


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def test_every_row_knows_its_parent_and_method(runs: Path) -> None:
    sheet = storage.read_json(runs / "tiny" / "sheet.json")
    assert sheet["schema"] == "workbench.sheet/1"
    assert [(row["variant"], row["parent"], row["method"], row["nominal_bits"]) for row in sheet["rows"]] == [
        ("base", None, "pretrain", None),
        ("cpt-replay", "base", "replay", None),
        ("rtn-w4", "cpt-replay", "rtn", 4),
        ("gptq-w4", "cpt-replay", "gptq", 4),
    ]


def test_every_row_is_measured_and_priced(runs: Path) -> None:
    for row in storage.read_json(runs / "tiny" / "sheet.json")["rows"]:
        assert {"retained.facts.acc", "new.facts.acc", "language.base.perplexity"} <= set(row["metrics"])
        assert row["disk_bytes"] > 0 and row["seconds"] > 0 and row["tokens_per_second"] > 0
        assert row["peak_memory_bytes"] > 0
        assert (row["real_bits"] is None) == (row["nominal_bits"] is None)
        if row["real_bits"]:
            assert row["real_bits"] > row["nominal_bits"]


def test_the_run_folder_holds_what_made_it(runs: Path) -> None:
    run = runs / "tiny"
    assert recipe.load(run / "recipe.yaml").recipe == recipe.load(run / "recipe.yaml").recipe
    assert yaml.safe_load((run / "recipe.yaml").read_text())["seed"] == 3
    record = storage.read_json(run / "record.json")
    assert record["seed"] == 3 and record["versions"]["torch"] and record["finished"]
    for name in ("00-pretrain-base", "01-cpt-cpt-full", "01-cpt-cpt-replay", "02-quantize-gptq-w4"):
        assert (run / "stages" / name / "model" / "config.json").is_file()
        assert not (run / "stages" / name / "checkpoints").exists()
    assert (run / "report.html").stat().st_size > 10_000
    assert not list((runs / ".store").glob("*.partial"))


def test_replay_draws_its_share_of_old_text(runs: Path) -> None:
    rows = (runs / "tiny" / "stages" / "01-cpt-cpt-replay" / "metrics.jsonl").read_text().splitlines()
    drawn = [json.loads(row)["sources"] for row in rows if "sources" in json.loads(row)]
    assert all(counts == {"new": 4, "old": 4} for counts in drawn) and len(drawn) == 4


def test_a_finished_run_only_shows_its_sheet(runs: Path, tiny_recipe: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (runs / "tiny").iterdir() if path.name != "lock"}
    walk.run(recipe.load(tiny_recipe), runs, "make recipe=tiny")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_recipe_finds_the_same_stages_in_the_store(runs: Path, tiny_recipe: Path) -> None:
    loaded = recipe.load(
        tiny_recipe,
        ["name=other", "stages.quantize.bits=[3]", "stages.quantize.methods=[rtn]", "evaluate.rows=[base]"],
    )
    walk.run(loaded, runs, "make recipe=other")
    run = runs / walk.run_name(loaded)
    started = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["variant"] for event in started if event["event"] == "stage started"] == ["rtn-w3"]
    assert events(run).count("stage found in the store") == 3
    assert "evaluation started" not in events(run)


def test_a_row_is_measured_before_the_next_is_made(runs: Path) -> None:
    told = [json.loads(line) for line in (runs / "tiny" / "events.jsonl").read_text().splitlines()]
    order = [(entry["event"], entry.get("variant")) for entry in told]
    assert order.index(("evaluation finished", "rtn-w4")) < order.index(("stage started", "gptq-w4"))


def test_an_expectation_that_is_missed_is_said(runs: Path, tiny_recipe: Path) -> None:
    loaded = recipe.load(tiny_recipe, ["expect={base.retained.facts.acc: [1.1, 1.2]}"])
    _, missed = walk.run(loaded, runs, "make recipe=tiny")
    assert len(missed) == 1 and "base.retained.facts.acc" in missed[0]


def test_two_runs_in_one_folder_are_refused(runs: Path, tiny_recipe: Path) -> None:
    with (
        storage.locked(runs / "tiny" / "lock", "the run folder"),
        pytest.raises(RunError, match="is in use by process"),
    ):
        walk.run(recipe.load(tiny_recipe), runs, "make recipe=tiny")


def test_a_read_only_run_folder_is_refused_and_left_alone(tmp_path: Path, tiny_recipe: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RunError, match="read-only"):
            walk.run(recipe.load(tiny_recipe), tmp_path, "make recipe=tiny")
        assert not list(tmp_path.iterdir())
    finally:
        tmp_path.chmod(0o755)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path, tiny_recipe: Path, monkeypatch) -> None:
    """Stopped between two stages: the first is not made again, and the sheet comes out whole."""
    made: list[str] = []
    builders = dict(walk.BUILDERS)

    def stop_at_gptq(job, out):
        if job.variant.name == "gptq-w4" and made.count("gptq-w4") == 0:
            made.append("gptq-w4")
            raise KeyboardInterrupt
        made.append(job.variant.name)
        builders[job.variant.kind](job, out)

    monkeypatch.setattr(walk, "BUILDERS", dict.fromkeys(builders, stop_at_gptq))
    loaded = recipe.load(tiny_recipe, ["evaluate.rows=[gptq-w4]"])
    with pytest.raises(KeyboardInterrupt):
        walk.run(loaded, tmp_path, "make recipe=tiny")
    finished, _ = walk.run(loaded, tmp_path, "make recipe=tiny")
    assert made == ["base", "cpt-full", "cpt-replay", "rtn-w4", "gptq-w4", "gptq-w4"]
    assert [row.variant for row in finished.rows] == ["gptq-w4"]
