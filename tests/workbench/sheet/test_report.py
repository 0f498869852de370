"""The page and the files beside it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from workbench import sheet
from workbench.sheet import report
from workbench.sheet.canvas import Drawing

EVIL = "<script>alert('&')</script>"
COMMAND = "make recipe=quickstart"


@pytest.fixture(scope="module")
def folder(example, curves, drawings, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:  # the figures are already drawn
        patch.setattr(report.plots, "drawings", lambda sheet, curves: drawings[:3])
        sheet.write(path, example, curves, COMMAND, {"python": "3.11"}, {"base.new.facts.acc": (0.9, 1)})
    return path


def test_all_files_are_there_and_no_temporary_one(folder):
    assert {path.name for path in folder.iterdir()} == {
        *("sheet.json", "sheet.md", "report.html", "plots"),
        *("frontier.json", "stability.json"),
    }
    assert len(list((folder / "plots").glob("*.png"))) == len(list((folder / "plots").glob("*.svg"))) == 3


def test_the_json_is_the_sheet(folder, example):
    assert json.loads((folder / "sheet.json").read_text()) == json.loads(json.dumps(example.to_json()))


def test_the_page_needs_nothing_from_elsewhere(folder):
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "@import" not in page
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == []
    assert COMMAND in page


def test_the_page_is_well_formed_and_its_ids_are_its_own(folder):
    stack, ids = [], []
    void = {"meta", "br", "link"}

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            ids.extend(value for name, value in attrs if name == "id")
            if tag not in void:
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Checker().feed((folder / "report.html").read_text())
    assert stack == []
    assert len(ids) == len(set(ids))


def test_every_score_and_missed_expectation_is_on_the_page(folder, example):
    page = (folder / "report.html").read_text()
    assert all(row.variant in page for row in example.rows)
    assert "0 of 1 expectations met" in page
    assert "44.0" in page


def test_every_text_is_escaped(rows):
    measurements = [[replace(row.measurements[0], task=EVIL, protocol=EVIL)] for row in rows[:2]]
    texts = {"stage": EVIL, "method": EVIL, "settings": {EVIL: EVIL}, "warnings": [EVIL]}
    pairs = zip(rows[:2], measurements, strict=True)
    built = sheet.build(EVIL, [replace(row, **texts, measurements=found) for row, found in pairs], seed=0)
    assert built.comparisons
    page = report.html(built, [], [], EVIL, {EVIL: EVIL}, {EVIL: (0, 1)})
    assert "<script" not in page
    assert "alert(" in page


def test_labels_of_figures_are_escaped_and_never_read_as_mathematics(rows):
    curve = sheet.Curve("a", [{"step": 0, "tokens": 0, "loss": 2.0}, {"step": 1, "tokens": 9, "loss": 1.0}])
    name = f"$x^2$ {EVIL}"
    built = sheet.build("r", [replace(rows[0], variant=name, measurements=[])], seed=0)
    picture = report.inline(report.plots.drawings(built, [replace(curve, variant=name)])[0])
    assert "<script" not in picture
    assert "$x^2$" in picture


def test_few_items_and_limits_are_noted(rows):
    few = dict(list(rows[0].measurements[2].items.items())[:5])
    limited = replace(rows[0].measurements[0], protocol="0 shots; limit 100; filter none")
    built = sheet.build(
        "r", [replace(rows[0], measurements=[limited, replace(rows[0].measurements[2], items=few)])], seed=0
    )
    page = report.html(built, [], [], COMMAND, {}, {})
    assert "has 5 items; the bootstrap of so few is too narrow" in page
    assert "new.facts.acc was measured on a limited number of items" in page


def test_a_failed_drawing_leaves_the_old_files_whole(folder, example, drawings, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Drawing, "png", full)
    monkeypatch.setattr(report.plots, "drawings", lambda sheet, curves: drawings[:1])
    with pytest.raises(OSError, match="No space"):
        sheet.write(folder, example, [], COMMAND, {})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_race_has_its_tables_beside_its_figures_and_its_records(
    race, race_curves, race_drawings, tmp_path, monkeypatch
):
    monkeypatch.setattr(report.plots, "drawings", lambda sheet, curves: race_drawings)
    monkeypatch.setattr(Drawing, "png", lambda self: b"")
    sheet.write(tmp_path, race, race_curves, COMMAND, {})
    page = (tmp_path / "report.html").read_text()
    assert page.count('<table class="race">') == 2
    assert "of full&#39;s gain" in page
    assert "behind cpt-replay" in page
    assert "seeds " in page
    plane = json.loads((tmp_path / "frontier.json").read_text())
    assert (plane["schema"], plane["new"]) == ("workbench.frontier/1", "new.facts.acc")
    assert [row["variant"] for row in plane["rows"]] == [row.variant for row in race.rows]
    stability = json.loads((tmp_path / "stability.json").read_text())
    assert stability["schema"] == "workbench.stability/1"
    assert len(stability["gaps"]) == 2 * len(race_curves)


def test_records_of_an_earlier_sheet_do_not_stay(rows, tmp_path):
    (tmp_path / "frontier.json").write_text("{}")
    (tmp_path / "stability.json").write_text("{}")
    sheet.write(tmp_path, sheet.build("r", [replace(rows[0], measurements=[])], seed=0), [], COMMAND, {})
    assert {path.name for path in tmp_path.iterdir()} == {"sheet.json", "sheet.md", "report.html", "plots"}
