from typing import Any

import pytest

from workbench import recipe
from workbench.recipe.grammar import PATTERNS, choice, grammar_of, nearest
from workbench.recipe.schema import Recipe

GRAMMAR = grammar_of(Recipe)
DATA = {
    "stages": [{"kind": "quantize", "gptq": {"damping": 1}, "bits": [1]}, {"kind": "none"}],
    "data": {"a": {}},
}


def test_every_form_of_a_name_has_words() -> None:
    def patterns(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(patterns, node))
        if not isinstance(node, dict):
            return set()
        own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
        return own.union(node.get("patternProperties", ()), *map(patterns, node.values()))

    assert patterns(recipe.json_schema()) == set(PATTERNS)


def test_every_setting_has_allowed_values_in_words() -> None:
    definitions = [GRAMMAR.root, *GRAMMAR.root["$defs"].values()]
    for node in (node for section in definitions for node in section["properties"].values()):
        assert GRAMMAR.words(node)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ((), ""),
        (("seed",), "seed"),
        (("stages", 0), "stages[0].quantize"),
        (("stages", 0, "bits", 0), "stages[0].quantize.bits[0]"),
        (("stages", 1, "bits"), "stages[1].bits"),
        (("stages", 5, "bits"), "stages[5].bits"),
        (("nowhere", "at", "all", 3), "nowhere.at.all[3]"),
    ],
)
def test_labels(path: Any, label: str) -> None:
    assert GRAMMAR.label(DATA, path) == label


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("stages", 0, "quantize", "bits", 0), ("stages", 0, "bits", 0)),
        (("stages", 0, "quantize", "group_size", "literal['channel']"), ("stages", 0, "group_size")),
        (("stages", 0, "quantize", "gptq", "extra"), ("stages", 0, "gptq")),
        (("data", "a", "[key]"), ("data", "a")),
        (("evaluate",), ("evaluate",)),
    ],
)
def test_locations_lose_what_is_not_in_the_recipe(location: Any, path: Any) -> None:
    assert GRAMMAR.path(DATA, location) == path


def test_keys_of_a_tagged_section_are_those_of_its_kind() -> None:
    assert "bits" in GRAMMAR.keys(DATA, ("stages", 0)) and "tokens" not in GRAMMAR.keys(DATA, ("stages", 0))
    assert GRAMMAR.keys(DATA, ("stages", 1)) == []


def test_words_for_choices_and_misspellings() -> None:
    assert choice([1]) == "1"
    assert choice(["a", 2, True]) == '"a", 2 or true'
    assert nearest("Tokns", ["tokens", "clip"]) == "tokens"
    assert nearest("xyz", ["tokens", "clip"]) is None
