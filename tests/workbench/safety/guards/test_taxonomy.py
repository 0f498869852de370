"""A taxonomy is data: its codes are places, and renumber when it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import RecipeError
from workbench.safety.guards import Taxonomy, load_taxonomy
from workbench.safety.guards.taxonomy import BUILT_IN


@pytest.mark.parametrize(("file", "prefix", "count"), [("llama-guard-1", "O", 6), ("llama-guard-3", "S", 14)])
def test_published_taxonomies(file: str, prefix: str, count: int) -> None:
    taxonomy = load_taxonomy(BUILT_IN / f"{file}.yaml")
    assert list(taxonomy.names) == [f"{prefix}{number}" for number in range(1, count + 1)]
    for code, name in taxonomy.names.items():
        assert f"{code}: {name}." in taxonomy.text.split("\n")


def test_cut_taxonomy_is_renumbered() -> None:
    whole = load_taxonomy(BUILT_IN / "llama-guard-3.yaml")
    cut = whole.only(set(whole.names.values()) - {"Violent Crimes", "Hate"})
    assert list(cut.names) == [f"S{number}" for number in range(1, 13)]
    assert cut.names["S1"] == "Non-Violent Crimes" and "S13" not in cut.names
    assert "Violent Crimes" not in cut.names.values() and "S13:" not in cut.text


def test_unknown_category_is_named(taxonomy: Taxonomy) -> None:
    with pytest.raises(ValueError, match="no category is named 'Hats'; there are Unbinding, Cracking"):
        taxonomy.only({"Hats"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prefix: S\ncategories: []\n", "categories"),
        ("prefix: S\ncategories:\n  - {name: Hats}\n  - {name: Hats}\n", "two categories are named 'Hats'"),
        ("prefix: S\ncategories:\n  - {name: Hats, polcy: none}\n", "taxonomy.yaml:3"),
    ],
)
def test_wrong_file_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "taxonomy.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=told):
        load_taxonomy(file)
