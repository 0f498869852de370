"""Headline sentences come from the comparisons and from nothing else."""

from workbench import sheet
from workbench.sheet.findings import answers
from workbench.sheet.frontier import frontiers


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


def test_a_race_tells_its_frontier_and_only_merges_that_are_on_it(race):
    found = by_question(race)
    assert "cpt-control-llm" in found["The frontier"]["No row beats"].sentence
    assert "96 % of retained facts at 9" in found["The frontier"]["cpt-control-llm"].sentence
    best = {point.variant for point in frontiers(race)[0].rows if point.on_frontier}
    merges = {row.variant for row in race.rows if row.method == "merge"}
    for question in ("What was learnt", "What was forgotten"):
        assert set(found[question]) & merges == best & merges
        assert {row.variant for row in race.rows if row.stage == "cpt"} <= set(found[question])
        assert all("text" not in one.sentence for one in found[question].values())


def test_merged_rows_are_told_against_what_training_began_from(race):
    learnt = by_question(race)["What was learnt"]
    assert all("26.0 % →" in found.sentence for found in learnt.values())


def test_without_a_race_there_is_no_frontier_to_tell(rows):
    assert "The frontier" not in by_question(sheet.build("r", rows[:2], seed=0))
