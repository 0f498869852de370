"""The tables add up, and the page shows them."""

from pathlib import Path

from workbench import sheet, storage
from workbench.sheet import Sheet
from workbench.sheet.preparation_table import tables

RECORD = {
    "schema": "workbench.preparation/1",
    "name": "clean",
    "documents": 1300,
    "kept": 1000,
    "removed": {"exact duplicate": 200, "contaminated": 100},
    "sources": {
        "web": {"kept": 600, "exact duplicate": 200},
        "<old>": {"kept": 400, "contaminated": 100},
    },
    "tasks": {"retained.facts": 70, "new.facts": 40},
    "labels": {"topic": {"accuracy": 0.975, "held_out": 40, "documents": {"beasts": 300, "rest": 700}}},
    "quality": {"0.05": 4.0, "0.5": 20.5, "0.95": 400.0},
}


def test_lines_add_up() -> None:
    sources, tasks = tables({"clean": RECORD})
    heading, *lines = sources.lines
    assert heading == ["source", "read", "exact duplicates", "contaminated", "kept"]
    numbers = [[int(cell.replace(",", "")) for cell in line[1:]] for line in lines]
    assert all(line[0] == sum(line[1:]) for line in numbers)
    assert numbers[2] == [a + b for a, b in zip(*numbers[:2], strict=True)] == [1300, 200, 100, 1000]
    assert tasks.lines[1:] == [["retained.facts", "70"], ["new.facts", "40"]]
    assert "97.5% of 40 held-out" in sources.legend and "50%: 20.5" in sources.legend


def test_a_plain_preparation_has_one_table_of_one_line() -> None:
    plain = {**RECORD, "sources": {"web": {"kept": 3}}, "kept": 3, "documents": 3, "removed": {}}
    plain |= {"tasks": {}, "labels": {}, "quality": None}
    (only,) = tables({"plain": plain})
    assert only.lines == [["source", "read", "kept"], ["web", "3", "3"]]


def test_the_page_shows_what_lies_in_the_folder(example: Sheet, tmp_path: Path) -> None:
    storage.write_json(tmp_path / "preparation.json", {"clean": RECORD})
    sheet.write(tmp_path, example, [], "make recipe=r", {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Text that was prepared: clean" in page
    assert "&lt;old&gt;" in page and "<old>" not in page
