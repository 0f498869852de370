"""Figures: which are drawn, from what, and in which colours."""

import re
from dataclasses import replace
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st

from workbench import sheet
from workbench.sheet import canvas, plots
from workbench.sheet.statistics import Interval


def test_every_question_has_its_figures(example, drawings):
    names = [drawing.name for drawing in drawings]
    assert names[:3] == ["training-new.facts.acc", "training-retained.facts.acc", "training-loss"]
    assert "frontier-new.facts.acc-retained.facts.acc" in names
    assert {name for name in names if name.startswith("bits-")} == {
        *("bits-new.facts.acc", "bits-retained.facts.acc"),
        *("bits-language.base.perplexity", "bits-language.new.perplexity"),
    }


def test_lines_carry_their_names_and_steep_perplexity_is_logarithmic(drawings):
    axes = {drawing.name: drawing.figure.axes[0] for drawing in drawings}
    assert {"rtn", "gptq", "cpt-replay"} <= {text.get_text() for text in axes["bits-new.facts.acc"].texts}
    assert axes["bits-language.base.perplexity"].get_yscale() == "log"
    assert axes["bits-new.facts.acc"].get_yscale() == "linear"
    assert not any(one.get_legend() for one in axes.values())


def test_a_method_keeps_its_colour(drawings):
    axes = {drawing.name: drawing.figure.axes[0] for drawing in drawings}
    figures = (
        "bits-new.facts.acc",
        "bits-language.new.perplexity",
        "frontier-new.facts.acc-retained.facts.acc",
    )
    names = ("gptq", "gptq-w2")
    colours = [
        {text.get_color() for text in axes[figure].texts if text.get_text() in names} for figure in figures
    ]
    assert colours[0] == colours[1] == colours[2]
    assert len(colours[0]) == 1


def test_svg_is_the_same_each_time_and_keeps_its_text(rows, curves):
    built = sheet.build("r", [replace(row, measurements=[]) for row in rows[:3]], seed=0)
    once, again = (plots.drawings(built, curves)[-1].svg for _ in range(2))
    assert once == again
    assert re.search(r"<text[^>]*>cpt-replay</text>", once)


def test_a_run_without_curves_or_quantized_rows_draws_what_it_has(rows):
    built = sheet.build("r", rows[:3], seed=0)
    assert [drawing.section for drawing in plots.drawings(built, [])] == ["frontier"]
    bare = sheet.build("r", [replace(rows[0], measurements=[])], seed=0)
    losses = [{"step": 0, "tokens": 0, "loss": 6.0}, {"step": 1, "tokens": 10, "loss": 5.0}]
    drawn = plots.drawings(bare, [sheet.Curve("base", losses)])
    assert [drawing.name for drawing in drawn] == ["training-loss"]


def test_methods_up_to_twelve_differ_in_colour_and_many_more_in_looks(rows):
    children = [
        replace(rows[1], variant=f"v{i}", method=f"m{i}", parent="base", measurements=[]) for i in range(40)
    ]
    built = sheet.build("r", [replace(rows[0], measurements=[]), *children], seed=0)
    looks = [look for variant, look in canvas.looks_of(built).items() if variant != "base"]
    assert len(set(looks)) == 40
    assert len({look.colour for look in looks[:12]}) == 12


def test_the_page_has_every_colour_in_both_modes():
    style = files("workbench.sheet").joinpath("report.css").read_text(encoding="utf-8")
    for index in range(2 + len(canvas.COLOURS)):
        assert style.count(f"--p{index}:") == 2


@given(st.floats(0, 1), st.floats(0, 2), st.floats(0, 2))
def test_bars_of_shares_end_at_0_and_1(value, below, above):
    ((low,), (high,)) = canvas.bar(Interval(value - below, value + above), value, "share")
    assert 0 <= low <= value + 1e-12
    assert 0 <= high <= 1 - value + 1e-12


def test_what_a_curve_loses_is_shaded_below_the_level_at_which_it_began(race_curves, race_drawings):
    figures = {drawing.name: drawing.figure for drawing in race_drawings}
    axes = figures["training-retained.facts.acc"].axes[0]
    assert len(axes.collections) == len(race_curves)
    assert any(set(line.get_ydata()) == {0.91} for line in axes.lines)
    assert not figures["training-loss"].axes[0].collections


def test_all_curves_of_a_race_are_named(race_curves, race_drawings):
    figures = {drawing.name: drawing.figure for drawing in race_drawings}
    written = {text.get_text() for text in figures["training-new.facts.acc"].axes[0].texts}
    assert {curve.variant for curve in race_curves} <= written


def test_trained_rows_of_one_method_differ_in_looks(rows):
    by_name = {row.variant: row for row in rows}
    twin = replace(by_name["cpt-full"], variant="other-full")
    built = sheet.build("quickstart", [by_name["base"], by_name["cpt-full"], twin], seed=1)
    looks = canvas.looks_of(built)
    assert len({looks[name] for name in ("base", "cpt-full", "other-full")}) == 3
