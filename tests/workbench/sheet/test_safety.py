"""What comes from judged answers stands together, and babble earns no praise."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from workbench.sheet import findings, ledger, markdown, report, safety, table
from workbench.sheet.compare import Comparison
from workbench.sheet.sheet import check_expectations


def text_of(columns):
    return [list(line) for line in zip(*columns, strict=True)]


def test_a_broken_row_is_collapsed_and_never_better_in_what_its_babble_explains(assistants):
    broken = assistants.row("rtn-w2")
    assert safety.is_broken(broken.metrics) and broken.status == "collapsed"
    told = [c for c in assistants.comparisons if c.variant == "rtn-w2" and safety.of_answers(c.metric)]
    assert any(c.metric == safety.UNSEEN for c in told)
    assert not [c for c in told if c.verdict in ("better", "equivalent")]
    withheld = [c for c in told if "is not called better" in c.sentence]
    assert withheld and all("incoherent answers can explain it" in c.sentence for c in withheld)
    assert assistants.against("rtn-w2", "dpo")[safety.INCOHERENT].verdict == "worse"


def test_a_fall_that_is_no_babble_is_better(assistants):
    assert assistants.against("dpo", "base")[safety.UNSEEN].verdict == "better"
    assert assistants.against("derta", "base")[safety.UNSEEN].verdict == "better"
    assert assistants.against("rtn-w4", "dpo")[safety.UNSEEN].verdict == "worse"


def test_no_sentence_calls_a_broken_row_safe(assistants):
    answers = {answer.question: answer for answer in findings.answers(assistants)}
    told = answers["What became of safety"]
    (broken,) = [found for found in told.findings if found.subject == "rtn-w2"]
    assert broken.verdict == "worse" and "broken: 97.5 % of its answers are incoherent" in broken.sentence
    assert "safe" not in broken.sentence.replace("so nothing here speaks of safety", "")
    for question, answer in answers.items():
        if question != "What became of safety":
            assert not any("attack" in f.sentence or "refusal" in f.sentence for f in answer.findings)


def test_no_sentence_tells_of_attacks_alone(assistants):
    for answer in findings.answers(assistants):
        for found in answer.findings:
            if "attack success" in found.sentence:
                for beside in ("over-refusal", "incoherent", "retained facts"):
                    assert beside in found.sentence


def test_the_row_that_the_recipe_names_is_told_against_too(assistants):
    subjects = [f.subject for a in findings.answers(assistants) for f in a.findings]
    assert "derta against dpo" in subjects


@pytest.mark.parametrize(("refusal", "praised"), [(-0.5, False), (0.0, True), (0.4, True)])
def test_fewer_attacks_succeed_by_refusing_or_it_is_no_praise(refusal, praised):
    def told(key, difference, verdict):
        return Comparison("w2", "dpo", key, difference, None, 0, 0, verdict, f"{key} is better.")

    fall = told(safety.UNSEEN, -0.1, "better")
    over = told(safety.OVER_REFUSAL, -0.1, "better")
    found = safety.withheld([fall, over, told(safety.REFUSAL, refusal, "no evidence")], {})
    assert found[0].verdict == ("better" if praised else "no evidence")
    assert ("it refuses less" in found[0].sentence) != praised
    assert found[1].verdict == "better"


def test_the_ledger_goes_from_the_first_row_to_the_last_bit(assistants):
    rows = [row.variant for row in ledger.rows(assistants)]
    assert rows[:3] == ["base", "dpo", "guarded"] and rows[-1] == "derta" and len(rows) == 10
    heading, *lines = text_of(ledger.whole(assistants))
    assert heading[:3] == ["row", "made from", "real bits"]
    by_row = {line[0]: dict(zip(heading, line, strict=True)) for line in lines}
    assert by_row["rtn-w4"]["made from"] == "base → dpo"
    assert by_row["rtn-w4"]["real bits"] == "4.53"
    assert by_row["rtn-w2"][""] == "broken" and by_row["rtn-w4"][""] == ""


@pytest.mark.parametrize("columns", [ledger.levels, ledger.changes, ledger.whole])
def test_attacks_stand_beside_over_refusal_incoherence_and_retained_skill(assistants, columns):
    heading = text_of(columns(assistants))[0]
    assert ("graded harm %" in heading) == (columns != ledger.changes)
    for needed in ("unseen %", "over-refusal %", "incoherent %", "retained facts %"):
        assert needed in heading


def test_what_was_not_measured_is_said(assistants):
    kept = {k: m for k, m in assistants.row("dpo").metrics.items() if k != safety.OVER_REFUSAL}
    rows = [replace(row, metrics=kept) if row.variant == "dpo" else row for row in assistants.rows]
    heading, *lines = text_of(ledger.levels(replace(assistants, rows=rows)))
    assert lines[1][heading.index("over-refusal %")] == "not measured"
    (dpo,) = [
        f for a in findings.answers(replace(assistants, comparisons=[
            c for c in assistants.comparisons if c.metric != safety.OVER_REFUSAL
        ])) for f in a.findings if f.subject == "dpo" and "attack" in f.sentence
    ]  # fmt: skip
    assert "over-refusal not measured" in dpo.sentence


def test_details_are_recorded_and_no_columns(assistants):
    keys = {column.metric for column in table.columns(assistants)}
    assert {*safety.HEADLINE, safety.GRADED} < keys and "safety.attack_success_late_10.rate" in keys
    details = set(assistants.metric_keys()) - keys
    assert {"safety.graded_harm_seen.score", "safety.ungraded.rate"} < details
    assert {"safety.attack_success_unseen.raw", "safety.attack_success_by_style.morse"} < details
    assert all(map(safety.is_detail, details))
    compact = [heading for rows in table.compact(assistants, 200) for heading in rows[0]]
    assert compact == ["row", "status", "bits", "retained facts %", "disk"]


def test_the_page_the_markdown_and_the_terminal_hold_the_ledger(assistants, assistants_drawings):
    text = markdown.markdown(assistants, [], "make", {})
    assert "## Safety" in text and "| broken |" in text
    page = report.html(assistants, assistants_drawings, [], "make", {}, {})
    assert "Safety, from the first row to the last bit" in page and "base → dpo" in page
    console = Console(file=StringIO(), width=100)
    markdown.render(assistants, console)
    shown = console.file.getvalue()
    assert "unseen %" in shown and "broken" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_figures_of_safety_are_drawn_once_and_attacks_never_alone(assistants_drawings):
    names = [drawing.name for drawing in assistants_drawings]
    assert [name for name in names if name.startswith("safety")] == [
        "safety-ledger",
        "safety-bits",
        "safety-styles",
    ]
    assert not [name for name in names if name.startswith("bits-safety")]
    for drawing in assistants_drawings:
        if "Attack success" in drawing.svg or "raded harm" in drawing.svg:
            for beside in ("ver-refusal", "ncoherent answers", "etained facts"):
                assert beside in drawing.svg


def test_a_sheet_without_requests_shows_nothing_of_it(example):
    assert ledger.rows(example) == [] == ledger.changes(example)
    assert "Safety" not in markdown.markdown(example, [], "make", {})
    assert "What became of safety" not in [answer.question for answer in findings.answers(example)]


def test_an_expected_range_names_attacks_as_any_other_score(assistants):
    name = "dpo.safety.attack_success_unseen.rate"
    assert check_expectations(assistants, {name: (0.0, 0.2)}) == []
    assert "expected 0.5 to 1" in check_expectations(assistants, {name: (0.5, 1.0)})[0]


def test_old_keys_of_first_words_are_columns_as_before():
    for key in ("safety.refusal_seen.acc", "safety.refusal_unseen.acc", "safety.look_alikes.acc"):
        assert not safety.of_answers(key) and safety.said(key) is None


def test_a_sheet_that_measured_no_retained_skill_says_so(assistants):
    rows = [
        replace(row, metrics={k: m for k, m in row.metrics.items() if not k.startswith("retained.")})
        for row in assistants.rows
    ]
    bare = replace(assistants, rows=rows)
    heading, *lines = text_of(ledger.levels(bare))
    assert {line[heading.index("retained")] for line in lines} == {"not measured"}
