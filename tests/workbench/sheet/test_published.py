"""Published rows stand beside those that were made as they were, and beside no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from workbench import recipe, sheet
from workbench.errors import RecipeError
from workbench.evaluation.battery import EVALS
from workbench.recipe.naming import variants
from workbench.recipe.quantization import QuantizationMethod
from workbench.sheet.published import Published, tables
from workbench.sheet.sheet import Metric, Row, Sheet

NAMES = sorted(path.stem for path in (EVALS / "published").glob("*.yaml"))
NOT_BUILT = {"db-llm", "qlora", "ir-qlora"}
STUDY = Path(__file__).parents[3] / "recipes/llama3-8b/study.yaml"
PPL, ACC = "language.wikitext2.perplexity", "retained.piqa.acc"


def row(variant: str, scores: dict[str, float | None], parent: str | None = "base", **settings: Any) -> Row:
    metrics = {key: Metric(value, None, None, 100, key == ACC, "any") for key, value in scores.items()}
    method = settings.get("method", "load")
    none = {"disk_bytes": None, "seconds": None, "peak_memory_bytes": None, "tokens_per_second": None}
    none |= {"nominal_bits": None, "real_bits": None}
    return Row(variant, parent, "", method, settings, metrics=metrics, status="sound", warnings=[], **none)


def lines(*rows: Row) -> list[list[str]]:
    """The lines of all tables on the 8B model, without headings."""
    found = tables(Sheet("any", list(rows), []), sheet.load_published("llama3-8b"))
    return [line for table in found for line in table.lines[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_published_results_are_of_known_methods_and_name_each_row_once(name: str) -> None:
    published = sheet.load_published(name)
    assert published.name == name
    for table in published.tables:
        assert {one.method for one in table.rows} <= {"load", *get_args(QuantizationMethod)} | NOT_BUILT
        keys = [one.model_dump_json(exclude={"scores"}) for one in table.rows]
        assert len(set(keys)) == len(keys)


def test_the_mean_of_the_tasks_is_the_one_that_the_paper_prints() -> None:
    """Its averages of the five tasks, which are not kept, guard against slips of the pen."""
    means: dict[tuple[Any, ...], float] = {
        ("load", None, None): 68.6,
        ("rtn", 3, 128): 40.2,
        ("gptq", 2, "channel"): 34.9,
    }
    means |= {("awq", 3, 128): 64.4, ("slim-llm", 2, 128): 40.8, ("pb-llm", 1.7, 128): 36.0}
    printed: dict[tuple[Any, ...], tuple[float, ...]] = {
        (one.method, one.bits, one.group_size): one.scores[3:]
        for one in sheet.load_published("llama3-8b").tables[0].rows
    }
    for key, mean in means.items():
        assert sum(printed[key]) / 5 == pytest.approx(mean, abs=0.11)


def test_rows_are_matched_by_method_bits_group_size_and_metric() -> None:
    base = row("base", {PPL: 6.138, ACC: 0.8}, None)
    fine = row("gptq-w4-g128", {PPL: 6.63, ACC: 0.780}, method="gptq", bits=4, group_size=128)
    coarse = row("gptq-w4-g64", {PPL: 6.4}, method="gptq", bits=4, group_size=64)
    later = row("late", {PPL: 6.4}, parent="cpt", method="gptq", bits=4, group_size=128)
    other = row("other", {"language.stories.perplexity": 3.0}, method="gptq", bits=4, group_size=128)
    found = lines(base, fine, coarse, later, other)
    assert found == [
        ["base", "perplexity on wikitext2 text", "6.10", "6.14", "+0.6 %"],
        ["base", "accuracy on retained piqa", "79.9 %", "80.0 %", "+0.1 points"],
        ["gptq-w4-g128", "perplexity on wikitext2 text", "6.50", "6.63", "+2.0 %"],
        ["gptq-w4-g128", "accuracy on retained piqa", "78.4 %", "78.0 %", "−0.4 points"],  # noqa: RUF001
        ["base", "accuracy on retained piqa", "79.9 %", "80.0 %", "+0.1 points"],
    ]


def test_activations_are_matched_where_the_source_names_them() -> None:
    settings: dict[str, Any] = {"method": "smoothquant", "bits": 8, "group_size": None}
    follows = row("w8a8", {PPL: 6.26}, **settings, method_settings={"activation_bits": None})
    differs = row("w8a6", {PPL: 7.0}, **settings, method_settings={"activation_bits": 6})
    assert [line[0] for line in lines(follows, differs)] == ["w8a8"]


@pytest.mark.parametrize(
    ("measured", "said"),
    [(None, "both collapsed"), (3.2e6, "both collapsed"), (40.0, "collapsed in print only")],
)
def test_a_collapse_is_compared_as_a_class(measured: float | None, said: str) -> None:
    settings: dict[str, Any] = {"method": "awq", "bits": 2, "group_size": 128}
    assert lines(row("awq-w2", {PPL: measured}, **settings))[0][-1] == said


def test_a_score_that_is_not_finite_has_no_difference() -> None:
    settings: dict[str, Any] = {"method": "awq", "bits": 4, "group_size": 128}
    assert lines(row("awq-w4", {PPL: None}, **settings))[0][-2:] == ["not finite", ""]


def test_caveats_are_told_only_where_their_column_is_shown() -> None:
    def legend(metric: str) -> str:
        shown = Sheet("any", [row("base", {metric: 9.0}, None)], [])
        return tables(shown, sheet.load_published("llama3-8b"))[0].legend

    assert "c4 text: protocols differ" in legend("language.c4.perplexity")
    assert "protocols differ between rows" not in legend(PPL)


def test_every_published_row_that_can_be_made_has_a_row_in_the_study() -> None:
    made = variants(recipe.load(STUDY).recipe)
    keys = {(one.method, one.bits, one.group_size) for one in made}
    keys |= {(one.method, one.bits, None) for one in made}
    for table in sheet.load_published("llama3-8b").tables:
        wanted = {(one.method, one.bits, one.group_size) for one in table.rows}
        assert {one for one in wanted if one[0] not in NOT_BUILT} <= keys


def test_the_report_and_the_markdown_hold_the_rows_against_the_paper(tmp_path: Path) -> None:
    measured = sheet.RowInput(
        "base", None, "load", "load", {}, None, None, None, [], seconds=None, peak_memory_bytes=None,
        tokens_per_second=None,
    )  # fmt: skip
    shown = sheet.build("study", [measured], seed=1)
    shown.rows[0].metrics[PPL] = Metric(6.138, None, None, 100, False, "any")
    for printed in (None, sheet.load_published("llama3-8b")):
        sheet.write(tmp_path, shown, [], "make", {}, None, printed)
        for name in ("report.html", "sheet.md"):
            text = (tmp_path / name).read_text(encoding="utf-8")
            assert ("Published against measured" in text) == (printed is not None)
            assert ("arXiv 2404.14047v3, tables 1 and 3" in text) == (printed is not None)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("rows: [{method: rtn, bits: 4, scores: [1.0, 2.0]}]", "rtn has 2 scores for 1 columns"),
        ("rows: [{method: rtn, bits: 9, scores: [1.0]}]", "allowed: a number from 1 to 8"),
        ("rows: []", "allowed: a list of at least one"),
    ],
)
def test_a_table_with_a_fault_is_told(tmp_path: Path, table: str, said: str) -> None:
    path = tmp_path / "x.yaml"
    head = "name: x\ndescription: x\ntables:\n  - source: x\n    protocol: x\n"
    path.write_text(f"{head}    columns: [{{metric: {PPL}}}]\n    {table}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=said):
        recipe.read(path, Published)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no such published results.*did you mean llama3-8b"):
        sheet.load_published("llama3-8")
