from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import recipe
from workbench.recipe.document import parse
from workbench.recipe.overrides import apply

# Slow machines and fixtures that any number of examples may share are no faults of the code.
REPEATABLE = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TOP = "name, description, seed, replicates, model, data, prepare, stages, evaluate, engine, expect"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=2", ("seed",), 2),
        ("stages.0.tokens=1e6", ("stages", 0, "tokens"), 1e6),
        ("stages.cpt.tokens=1e9", ("stages", 1, "tokens"), 1e9),
        ("stages.pretrain.clip=2", ("stages", 0, "clip"), 2),
        ("stages.base.clip=2", ("stages", 0, "clip"), 2),
        ("stages.quantize.bits=[3, 2]", ("stages", 2, "bits"), [3, 2]),
        ("stages.quantize.bits.1=2", ("stages", 2, "bits"), [8, 2]),
        ("stages.quantize.gptq.damping=0.1", ("stages", 2, "gptq"), {"damping": 0.1}),
        ("stages.cpt.mixture.old=0.5", ("stages", 1, "mixture"), {"young": 1.0, "old": 0.5}),
        ("engine.zero_stage=2", ("engine",), {"zero_stage": 2}),
        ("model.new.tokenizer_sources.0=young", ("model", "new", "tokenizer_sources"), ["young"]),
        ("data.old.documents=[0, 9]", ("data", "old"), {"miniworld": "base", "documents": [0, 9]}),
        ("data.extra={path: a=b.txt}", ("data", "extra"), {"path": "a=b.txt"}),
        ("expect.base.language.base.perplexity=[1, 2]", ("expect", "base.language.base.perplexity"), [1, 2]),
        ("stages.cpt.from=base", ("stages", 1, "from"), "base"),
        ("stages.cpt.probe_every=", ("stages", 1, "probe_every"), None),
        ("evaluate.rows=[base]", ("evaluate", "rows"), ["base"]),
    ],
)
def test_an_override_is_written_where_its_key_says(sound: str, override: str, path: Any, value: Any) -> None:
    document = parse(sound, "r.yaml")
    apply(document, [override], recipe.Recipe)
    assert document.faults == []
    assert document.get(path) == value


def test_names_with_dots_are_found(sound: str) -> None:
    document = parse(sound.replace("  old:", "  old.v1:"), "r.yaml")
    apply(document, ["data.old.v1.field=body"], recipe.Recipe)
    assert document.get(("data", "old.v1", "field")) == "body"


def test_a_name_wins_over_a_kind(sound: str) -> None:
    document = parse(sound.replace("kind: cpt", "kind: cpt\n    name: pretrain"), "r.yaml")
    apply(document, ["stages.pretrain.clip=2"], recipe.Recipe)
    assert document.get(("stages", 1, "clip")) == 2


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sed=2", f"set: sed  unknown key; did you mean seed? valid keys: {TOP}"),
        ("stages.cpt.tokns=2", "set: stages.cpt.tokns  unknown key; did you mean tokens?"),
        (
            "stages.quantize.gptq.dampin=2",
            "set: stages.quantize.gptq.dampin  unknown key; did you mean damping? "
            "valid keys: damping, act_order, static_groups, block_size, true_sequential",
        ),
        ("stages.7.tokens=2", "set: stages.7.tokens  stages has 3 items, numbered from 0; there is no 7"),
        (
            "stages.quantise.bits=[2]",
            "set: stages.quantise.bits  stages has no item quantise; did you mean quantize? "
            "items: base, cpt, quantize",
        ),
        ("seed.x=2", "set: seed.x  seed is a value, not a section; write seed=... to set it"),
        ("seed", "set: seed  an override is written key=value, such as seed=2"),
        ("=2", "set:   an override is written key=value, such as seed=2"),
        ("seed=[2", "set: seed  not readable as YAML: "),
        (
            "seed=two",
            'set: seed  seed: found "two"; allowed: a whole number of at least 0 and below 2147483648',
        ),
        ("seed=&a 2", "set: seed  seed: anchor &a is not allowed; write the value out where it is used"),
        (
            "stages.cpt.tokens=0.5",
            "set: stages.cpt.tokens  stages[1].cpt.tokens: found 0.5; allowed: a whole number above 0",
        ),
        (
            "stages.cpt.mixture={odl: 1.0}",
            'set: stages.cpt.mixture  stages[1].cpt.mixture.odl: no source "odl" in data; did you mean old? '
            "there are: old, young",
        ),
        (
            "stages.quantize.from=cpt-ful",
            'set: stages.quantize.from  stages[2].quantize.from: no variant "cpt-ful" exists at this point; '
            "did you mean cpt-full? there are: base, cpt-full, cpt-replay",
        ),
    ],
)
def test_a_wrong_override_is_one_line_that_points_at_it(faults, override: str, line: str) -> None:
    said = faults(overrides=(override,))
    assert len(said) == 1
    assert said[0].startswith(line)


def test_a_kind_that_fits_several_stages_is_refused(faults) -> None:
    again = "  - {kind: quantize, name: again, from: cpt-full, methods: [rtn], bits: [3]}\nevaluate:"
    first = "kind: quantize\n    name: first"
    assert faults(
        ("kind: quantize", first), ("evaluate:", again), overrides=("stages.quantize.group_size=64",)
    ) == [
        "set: stages.quantize.group_size  quantize is the name or kind of several items of stages; "
        "give the position: 2 or 3"
    ]


def test_later_overrides_win(load, sound: str) -> None:
    assert load(sound, "seed=2", "seed=3").recipe.seed == 3


def test_loaded_recipe_remembers_its_overrides(load, sound: str) -> None:
    assert load(sound, "seed=2", "stages.cpt.clip=2").overrides == ("seed=2", "stages.cpt.clip=2")
    assert load(sound, "seed=2").digest != load(sound).digest == load(sound, "seed=1").digest


@settings(REPEATABLE, max_examples=20)
@given(rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False), tokens=st.integers(2048, 10**15))
def test_numbers_arrive_exactly(load, sound: str, rate: float, tokens: int) -> None:
    stage = load(sound, f"stages.0.learning_rate={rate!r}", f"stages.0.tokens={tokens:_}").recipe.stages[0]
    assert (stage.learning_rate, stage.tokens) == (rate, tokens)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in _leaves(each, (*path, key))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for index, each in enumerate(value) for leaf in _leaves(each, (*path, str(index)))]
    return [(".".join(path), value)]


def test_overriding_every_setting_with_itself_changes_nothing(load, sound: str) -> None:
    loaded = load(sound)
    leaves = _leaves(parse(loaded.text, "r.yaml").data)
    assert len(leaves) > 60
    overrides = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in leaves]
    again = load(sound, *overrides)
    assert again.recipe == loaded.recipe
    assert (again.text, again.digest) == (loaded.text, loaded.digest)
