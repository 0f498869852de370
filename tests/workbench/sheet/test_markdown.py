"""Markdown and the terminal."""

import io
from dataclasses import replace

from rich.console import Console

from workbench import sheet
from workbench.sheet import stability
from workbench.sheet.markdown import markdown


def test_tables_are_aligned_and_at_most_a_hundred_wide(example):
    text = markdown(example, [], "make recipe=quickstart", {})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines
    assert max(map(len, lines)) <= 100
    assert "    make recipe=quickstart" in text


def test_missed_expectations_and_warnings_are_shown_escaped(rows):
    built = sheet.build("r", [replace(rows[0], warnings=["a|b <b>bold</b>"])], seed=0)
    text = markdown(built, [], "c", {"base.new.facts.acc": (0.9, 1.0)})
    assert "a\\|b &lt;b>bold&lt;/b>" in text
    assert "base.new.facts.acc is 0.26, expected 0.9 to 1" in text
    assert "All 1 expected ranges are met." in markdown(built, [], "c", {"base.new.facts.acc": (0.2, 1.0)})


def test_the_terminal_table_fits_and_is_not_marked_up(rows):
    built = sheet.build("r", [replace(rows[0], warnings=["[red]not markup[/red]"]), *rows[1:5]], seed=0)
    for width in (70, 120):
        console = Console(file=io.StringIO(), width=width)
        sheet.render(built, console)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= width
        assert all(row.variant in text for row in built.rows)
        assert "…" not in text
        assert "[red]not markup[/red]" in text


def test_a_race_has_its_methods_and_gaps_in_a_hundred_columns(race, race_curves):
    text = markdown(race, stability.gaps(race, race_curves), "c", {})
    assert "## Methods" in text
    assert "## Stability gaps" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 100
