"""Headline sentences come from the comparisons and from nothing else."""

from workbench import sheet
from workbench.sheet.findings import answers


def by_question(built):
    return {answer.question: {found.subject: found for found in answer.findings} for answer in answers(built)}


def test_learning_and_forgetting_are_told_with_their_numbers(example):
    found = by_question(example)
    learnt, forgotten = found["What was learnt"], found["What was forgotten"]
    assert set(learnt) == {"cpt-full", "cpt-replay"}
    assert "accuracy on new facts 26.0 % → 93.0 % (+67.0 points)" in learnt["cpt-full"].sentence
    assert "91.0 % → 44.0 %" in forgotten["cpt-full"].sentence
    assert "48 % kept" in forgotten["cpt-full"].sentence
    assert forgotten["cpt-full"].verdict == "worse"


def test_each_bit_width_has_its_methods_and_their_duel(example):
    costs = next(answer for answer in answers(example) if answer.question == "What each bit width costs")
    assert list(costs.groups) == ["8 bits", "4 bits", "3 bits", "2 bits"]
    two = {found.subject: found for found in costs.groups["2 bits"]}
    assert two["rtn-w2 (2.51 bits)"].sentence.startswith("collapsed: ")
    assert two["gptq-w2 against rtn-w2"].sentence == "better on 4 of 4 metrics."
    assert {found.verdict for found in costs.groups["8 bits"]} <= {"equivalent", "no evidence"}


def test_nothing_is_claimed_of_a_single_row(rows):
    assert answers(sheet.build("r", rows[:1], seed=0)) == []


def test_a_skill_that_was_not_learnt_is_told_too(rows):
    lazy = sheet.RowInput(**{**vars(rows[1]), "measurements": rows[0].measurements})
    learnt = by_question(sheet.build("r", [rows[0], lazy], seed=0))["What was learnt"]["cpt-full"]
    assert learnt.verdict in ("equivalent", "no evidence")
    assert "accuracy on new facts" in learnt.sentence
