"""Guards against labels: what is a column of the sheet, and what stands in tables of its own."""

from __future__ import annotations

import pytest

from workbench.safety.guards.guard_metrics import Judged, measured
from workbench.safety.moderation import Text
from workbench.sheet import assembly, findings, guard_table, markdown, safety, table, wording
from workbench.sheet.sheet import RowInput, Sheet


def judged(scores: list[float | None], kind: str) -> list[Judged]:
    """Texts about hats and ties in turn, every other pair unsafe."""
    rows = []
    for i, score in enumerate(scores):
        topic, unsafe = ("hats", "big ties")[i % 2], i % 4 < 2
        labels = {name: unsafe and name == topic for name in ("hats", "big ties")}
        text = Text(id=f"{kind}{i}", base_id=f"{i}", prompt="p", labels=labels, topics=(topic,))
        said = None if score is None else score > 0.5
        rows.append(Judged(text, score, said, {} if score is None else {"hats": score}))
    return rows


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    blank = dict.fromkeys(("nominal_bits", "real_bits", "disk_bytes", "seconds", "peak_memory_bytes"))
    rows = []
    for name, scores in {
        "good": [0.9, 0.8, 0.1, 0.2] * 10,
        "poor": [0.2, 0.8, 0.9, 0.2] * 5 + [None, 0.8, 0.9, 0.2] * 5,
    }.items():
        found = measured("moderation", judged(scores, "p"), "requests")
        found += measured("moderation_responses", judged(scores, "r"), "answers")
        rows.append(
            RowInput(
                variant=name,
                parent="base",
                stage="guard",
                method="guard",
                settings={},
                measurements=found,
                tokens_per_second=None,
                against="good" if name == "poor" else None,
                **blank,  # type: ignore[arg-type]
            )
        )
    return assembly.build("guards", rows, seed=0)


def test_three_measures_are_columns_and_the_rest_are_details(sheet: Sheet) -> None:
    shown = [column.metric for column in table.columns(sheet)]
    assert set(shown) == set(safety.OF_GUARDS) and len(shown) == 6
    assert not any(map(safety.of_answers, sheet.metric_keys()))
    assert wording.describe("safety.moderation.f1") == "F1 on labelled requests"
    words = wording.describe("safety.moderation_responses_flagged.big_ties")
    assert words == "flagged on labelled answers of big ties"
    assert "requests F1 %" in [column.brief for column in table.columns(sheet)]


def test_tables_hold_every_guard_and_category(sheet: Sheet) -> None:
    found = {each.title: each.lines for each in guard_table.tables(sheet)}
    assert len(found) == 4
    heads, good, poor = found["Guards against labels: requests"]
    assert heads == ["guard", "F1", "precision", "recall", "false alarms", "AUPRC", "missing"]
    assert good[0] == "good" and good[1].startswith("100.0 ±") and poor[-1].startswith("12.5 ±")
    heads, *lines = found["Guards by category: answers"]
    assert heads == ["category", "measure", "good", "poor"]
    assert [line[:2] for line in lines] == [
        ["big ties", "judged unsafe"],
        ["big ties", "false alarms"],
        ["hats", "judged unsafe"],
        ["hats", "false alarms"],
        ["hats", "AUPRC"],
    ]
    assert lines[3][3].startswith("100.0 ±") and lines[3][2].startswith("0.0 ±")


def test_findings_tell_of_the_columns_alone(sheet: Sheet) -> None:
    """A swap moves dozens of details; they are in the tables."""
    told = " ".join(each.sentence for answer in findings.answers(sheet) for each in answer.findings)
    assert "labelled requests" in told and "hats" not in told
    page = markdown.markdown(sheet, [], "make", {}, guard_table.tables(sheet))
    assert "## Guards by category: requests" in page


def test_a_sheet_without_guards_has_no_such_table(example: Sheet) -> None:
    assert guard_table.tables(example) == []
