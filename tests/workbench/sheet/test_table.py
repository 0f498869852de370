"""The table in all its drawings."""

from dataclasses import replace

from workbench import sheet
from workbench.sheet import table


def test_numbers_of_different_protocols_never_share_a_column(rows):
    other = replace(rows[1].measurements[0], protocol="5 shots")
    built = sheet.build("r", [rows[0], replace(rows[1], measurements=[other])], seed=0)
    columns = [column for column in table.columns(built) if column.metric == "new.facts.acc"]
    assert [column.brief for column in columns] == ["new facts % [1]", "new facts % [2]"]
    for row in built.rows:
        assert sum(table.cell(built, row, column) is not None for column in columns) == 1


def test_cells_show_score_spread_and_verdict(example):
    column = next(column for column in table.columns(example) if column.metric == "retained.facts.acc")
    assert table.cell(example, example.row("base"), column).short == "91.0 ±2.6"
    assert table.cell(example, example.row("cpt-full"), column).short == "44.0 ±4.0 ▼"


def test_no_table_is_wider_than_asked_and_no_column_is_lost(example):
    for width in (60, 80, 100, 400):
        tables = table.compact(example, width)
        for lines in tables:
            longest = [max(map(len, column)) for column in zip(*lines, strict=True)]
            assert sum(3 + size for size in longest) + 1 <= width
            assert [line[0] for line in lines[1:]] == [row.variant for row in example.rows]
        headings = [heading for lines in tables for heading in lines[0][1:]]
        assert len(headings) == len(set(headings)) == len(table.columns(example)) + 4


def test_the_four_main_scores_of_the_quickstart_fit_a_hundred_columns(example):
    assert table.compact(example, 100)[0][0] == [
        *("row", "status", "bits", "new facts %", "retained facts %", "base ppl", "new ppl"),
    ]


def test_rows_without_measurements_still_make_a_table(rows):
    built = sheet.build("r", [replace(rows[0], measurements=[])], seed=0)
    assert table.compact(built, 100) == [
        [["row", "status", "disk", "tokens/s"], ["base", "sound", "4.3 MB", "11,240"]]
    ]


def test_settings_are_one_line_with_what_is_long_cut(example):
    settings = {"place": "both", "guard": {"kind": "llama-guard", "model": {"variant": "9f" * 60}}, "bits": 4}
    row = replace(example.rows[0], settings=settings)
    ((_, cells),) = table.costs(replace(example, rows=[row]))
    assert cells[-1] == "place both, guard (kind llama-guard, model (variant 9f9f9f9f9f9f…)), bits 4"
