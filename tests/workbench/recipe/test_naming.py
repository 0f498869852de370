import pytest

from workbench import recipe
from workbench.errors import RecipeError
from workbench.recipe import Variant


def rows(loaded: recipe.Loaded) -> list[tuple[object, ...]]:
    return [
        (v.name, v.parent, v.stage_index, v.kind, v.method, v.bits) for v in recipe.variants(loaded.recipe)
    ]


def test_variants_of_a_new_model(load, sound: str) -> None:
    assert rows(load(sound)) == [
        ("base", None, 0, "pretrain", "pretrain", None),
        ("cpt-full", "base", 1, "cpt", "full", None),
        ("cpt-replay", "base", 1, "cpt", "replay", None),
        ("rtn-w8", "cpt-replay", 2, "quantize", "rtn", 8),
        ("rtn-w4", "cpt-replay", 2, "quantize", "rtn", 4),
        ("gptq-w8", "cpt-replay", 2, "quantize", "gptq", 8),
        ("gptq-w4", "cpt-replay", 2, "quantize", "gptq", 4),
    ]


def test_variants_of_finished_models(load) -> None:
    loaded = load("""
name: finished
description: d
model: {path: a}
stages:
  - {kind: quantize, methods: [rtn], bits: [4]}
  - {kind: load, name: other, model: {path: b}}
  - {kind: quantize, name: q2, methods: [rtn], bits: [4, 3]}
  - {kind: quantize, name: q3, from: base, methods: [rtn], bits: [4]}
""")
    assert rows(loaded) == [
        ("base", None, -1, "load", "load", None),
        ("rtn-w4", "base", 0, "quantize", "rtn", 4),
        ("other", None, 1, "load", "load", None),
        ("q2-rtn-w4", "other", 2, "quantize", "rtn", 4),
        ("q2-rtn-w3", "other", 2, "quantize", "rtn", 3),
        ("q3-rtn-w4", "base", 3, "quantize", "rtn", 4),
    ]


def test_a_variant_knows_its_stage(load, sound: str) -> None:
    loaded = load(sound)
    for variant in recipe.variants(loaded.recipe):
        assert variant.stage is loaded.recipe.stages[variant.stage_index]
    finished = load(
        "name: a\ndescription: d\nmodel: {path: a}\nstages: [{kind: quantize, methods: [rtn], bits: [4]}]"
    )
    assert recipe.variants(finished.recipe)[0] == Variant("base", None, -1, None, "load", "load", None)


def test_variants_of_an_unchecked_recipe_raise(load, sound: str) -> None:
    loaded = load(sound).recipe
    broken = loaded.model_copy(update={"stages": [loaded.stages[1]]})
    with pytest.raises(RecipeError, match="the first stage must be pretrain"):
        recipe.variants(broken)
