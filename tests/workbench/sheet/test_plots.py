"""Figures: which are drawn, from what, and in which colours."""

import re
from dataclasses import replace

from workbench import sheet
from workbench.sheet import plots


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
