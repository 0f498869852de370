"""The tables of methods and of gaps."""

from workbench.sheet import race_table
from workbench.sheet.frontier import frontiers
from workbench.sheet.stability import Stability, stability_gap


def test_each_method_has_its_numbers_and_its_verdict(race):
    columns = {column[0]: column[1:] for column in race_table.methods(race, frontiers(race)[0])}
    place = columns["row"].index("cpt-control-llm")
    assert columns["kept"][place] == "96 %"
    assert columns["trainable"][place] == "365 K"
    assert columns["verdict"][place] == "on the frontier"
    assert columns["verdict"][columns["row"].index("cpt-lora")].startswith("behind ")
    assert columns["of full's gain"][columns["row"].index("cpt-full")] == "100 %"
    assert columns["kept"][0] == ""


def test_what_nobody_knows_has_no_column(example):
    headings = [column[0] for column in race_table.methods(example, frontiers(example)[0])]
    assert "trainable" not in headings
    assert "time" in headings


def test_only_curves_that_fell_are_listed_and_those_not_back_are_bounds(race):
    back = Stability("cpt-full", "new.facts.acc", stability_gap([(0, 0.5), (1000, 0.4), (2000, 0.5)]))
    lost = Stability("cpt-lora", "retained.facts.acc", stability_gap([(0, 0.5), (3000, 0.3)]))
    never = Stability("cpt-ewc", "retained.facts.acc", stability_gap([(0, 0.5), (3000, 0.6)]))
    columns = {column[0]: column[1:] for column in race_table.gaps(race, [back, lost, never])}
    assert columns["row"] == ["cpt-full", "cpt-lora"]
    assert columns["depth"] == ["10.0 points", "20.0 points"]
    assert columns["back after"] == ["2 K", "> 3 K"]
    assert columns["area"] == ["10 K", "30 K"]  # points times tokens
    assert race_table.gaps(race, [never]) == []
