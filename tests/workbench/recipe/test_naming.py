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


def test_variants_of_several_groups_and_of_mean_widths(load) -> None:
    loaded = load("""
name: finished
description: d
model: {path: a}
data: {t: {path: t.txt}}
stages:
  - {kind: quantize, methods: [rtn, hqq], bits: [4], groups: [128, channel]}
  - {kind: quantize, from: base, name: low, methods: [pb-llm], bits: [1.7, 2], calibration: {mixture: {t: 1}}}
  - {kind: quantize, from: base, name: own, methods: [nf4], bits: [4], groups: [64, 32]}
""")
    assert [(v.name, v.bits, v.group_size) for v in recipe.variants(loaded.recipe)][1:] == [
        ("rtn-w4-g128", 4, 128),
        ("rtn-w4-channel", 4, "channel"),
        ("hqq-w4-g128", 4, 128),
        ("hqq-w4-channel", 4, "channel"),
        ("low-pb-llm-w1.7", 1.7, 128),
        ("low-pb-llm-w2", 2, 128),
        ("own-nf4-w4", 4, 128),
    ]


RETENTION = """
name: retention
description: d
model: {path: a}
data: {new: {path: n.txt}}
stages:
  - kind: cpt
    methods: [full, control-llm]
    mixture: {new: 1.0}
    tokens: 1000
    batch_size: 1
    sequence_length: 10
    learning_rate: 1e-3
    control_llm: {blocks: 2}
  - {kind: merge, from: cpt-full, algorithms: [linear, ties], weights: [0.25, 1]}
  - {kind: merge-back, from: cpt-control-llm}
  - {kind: quantize, methods: [rtn], bits: [4]}
"""


def test_variants_whose_linears_differ_in_width(load) -> None:
    loaded = load("""
name: finished
description: d
model: {path: a}
data: {t: {path: t.txt}}
stages:
  - kind: quantize
    methods: [rtn]
    bits: [3, 2.7]
    groups: [128, channel]
    calibration: {mixture: {t: 1}}
    allocation: {}
  - {kind: quantize, from: base, methods: [rtn], bits: [3], calibration: {mixture: {t: 1}}}
""")
    assert [variant.name for variant in recipe.variants(loaded.recipe)][1:] == [
        "rtn-w3-g128-mixed",
        "rtn-w3-channel-mixed",
        "rtn-w2.7-g128-mixed",
        "rtn-w2.7-channel-mixed",
        "rtn-w3",
    ]


def test_variants_of_merges(load) -> None:
    assert rows(load(RETENTION))[3:] == [
        ("merge-linear-0.25", "cpt-full", 1, "merge", "merge", None),
        ("merge-linear-1", "cpt-full", 1, "merge", "merge", None),
        ("merge-ties-0.25", "cpt-full", 1, "merge", "merge", None),
        ("merge-ties-1", "cpt-full", 1, "merge", "merge", None),
        ("merged-back", "cpt-control-llm", 2, "merge-back", "merge-back", None),
        ("rtn-w4", "merged-back", 3, "quantize", "rtn", 4),
    ]
    merges = [v for v in recipe.variants(load(RETENTION).recipe) if v.method == "merge"]
    assert [(v.algorithm, v.weight) for v in merges] == [
        ("linear", 0.25),
        ("linear", 1.0),
        ("ties", 0.25),
        ("ties", 1.0),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("from: cpt-full", "from: cpt-control-llm", "cpt-control-llm cannot be merged with what it was made"),
        ("from: cpt-full", "from: base", "base cannot be merged with what it was made"),
        ("from: cpt-control-llm", "from: cpt-full", "cpt-full has no copies to merge back"),
        ("{blocks: 2}", "{blocks: 2, structure: stack}", "cpt-control-llm has no copies to merge back"),
        ("control_llm: {blocks: 2}", "lora: {rank: 4}", "control-llm needs the section control_llm"),
        (
            "methods: [full, control-llm]",
            "methods: [full, distill]\n    distill: {text: replay}",
            "replay for",
        ),
        ("learning_rate: 1e-3", "learning_rate: 1e-3\n    floor: {metric: x, share: 1}", "needs probe_every"),
    ],
)
def test_methods_and_merges_fit_what_they_go_on_from(load, old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(RETENTION.replace(old, new))


def test_a_method_trains_at_its_own_rate_where_it_has_one(load) -> None:
    stage = load(RETENTION.replace("{blocks: 2}", "{blocks: 2, learning_rate: 5e-3}")).recipe.stages[0]
    assert stage.under("control-llm").learning_rate == 5e-3
    assert stage.under("full") == stage


def test_a_variant_knows_its_stage(load, sound: str) -> None:
    loaded = load(sound)
    for variant in recipe.variants(loaded.recipe):
        assert variant.stage is loaded.recipe.stages[variant.stage_index]
    finished = load(
        "name: a\ndescription: d\nmodel: {path: a}\nstages: [{kind: quantize, methods: [rtn], bits: [4]}]"
    )
    assert recipe.variants(finished.recipe)[0] == Variant("base", None, -1, None, "load", "load")


def test_variants_of_an_unchecked_recipe_raise(load, sound: str) -> None:
    loaded = load(sound).recipe
    broken = loaded.model_copy(update={"stages": [loaded.stages[1]]})
    with pytest.raises(RecipeError, match="the first stage must be pretrain"):
        recipe.variants(broken)
