# ruff: noqa: E501 - a message stands on one line here, as users see it.
"""Safety stages: which rows they make, and what must hold between them, the data and the variants."""

import re

import pytest

from workbench.errors import RecipeError
from workbench.recipe import variants
from workbench.recipe.safety import Safety

SAFETY = """\
  - kind: safety
    from: base
    methods: [dpo, derta]
    triplets: {requests: miniworld, judge: {kind: miniworld}}
    sizes: [100, 200]
    mixture: {turns: 1.0}
    tokens: 1e5
    batch_size: 8
    sequence_length: 128
    learning_rate: 1e-4
  - kind: guard
    from: base
    guard: {kind: miniworld}
"""
PATCH = """\
  - kind: safety
    name: patch
    from: rtn-w4
    methods: [q-resafe]
    triplets: {requests: miniworld, judge: {kind: miniworld}, chosen: {variant: cpt-replay}}
    mixture: {turns: 1.0}
    tokens: 1e5
    batch_size: 8
    sequence_length: 128
    learning_rate: 1e-4
    q_resafe: {rank: 8, tau: 0.6, learning_rate: 1e-5}
"""
SFT = """\
  - kind: sft
    from: base
    mixture: {turns: 0.5, old: 0.5}
    tokens: 1e5
    batch_size: 8
    sequence_length: 128
    learning_rate: 1e-4
"""
TURNS = "  turns: {miniworld: harmless}\n"


def with_stages(sound: str, added: str, *changes: tuple[str, str]) -> str:
    """The sound recipe with a source of exchanges and stages at the end of its list."""
    for old, new in changes:
        assert old in added, old
        added = added.replace(old, new)
    text = sound.replace("data:\n", "data:\n" + TURNS, 1)
    head, key, tail = text.partition("\nevaluate:")
    return f"{head.rstrip()}\n{added}{key}{tail}"


def test_a_safety_stage_makes_a_row_for_each_method_and_size_and_a_guard_makes_one(load, sound: str) -> None:
    made = {each.name: each for each in variants(load(with_stages(sound, SAFETY)).recipe)}
    rows = ["safety-dpo-n100", "safety-dpo-n200", "safety-derta-n100", "safety-derta-n200", "guarded"]
    assert [name for name in made if name in rows] == rows
    assert {made[name].parent for name in rows} == {"base"}
    assert made["safety-derta-n200"].triplets == 200


def test_a_quantized_row_is_patched_and_so_is_a_patched_one(load, sound: str) -> None:
    again = PATCH.replace("name: patch", "name: again").replace("from: rtn-w4", "from: patch-q-resafe")
    made = {each.name: each for each in variants(load(with_stages(sound, PATCH + again)).recipe)}
    patched = made["patch-q-resafe"]
    assert (patched.parent, made["again-q-resafe"].parent) == ("rtn-w4", "patch-q-resafe")
    assert isinstance(patched.stage, Safety) and patched.stage.rate_of("q-resafe") == 1e-5


def test_supervised_fine_tuning_is_a_training_of_its_own_kind(load, sound: str) -> None:
    made = {each.name: each for each in variants(load(with_stages(sound, SFT)).recipe)}
    assert (made["sft-full"].kind, made["sft-full"].method) == ("sft", "full")


@pytest.mark.parametrize(
    ("stages", "change", "message"),
    [
        (SAFETY, ("turns: 1.0", "old: 1.0"), "mixture: old is no source of exchanges; give it chat, or leave it to an sft stage"),
        (SFT, ("turns: 0.5, old: 0.5", "old: 1.0"), "mixture: has no source of exchanges, so there are no answers to learn; name one, or use cpt"),
        (SAFETY, ("guard: {kind: miniworld}", "guard: {kind: wildguard, variant: bas}"), 'guard.variant: no variant "bas" is made before; did you mean base?'),
        (SAFETY, ("guard: {kind: miniworld}", "guard: {kind: wildguard}"), "wildguard needs exactly one of model, variant"),
        (SAFETY, ("judge: {kind: miniworld}", "judge: {kind: miniworld, variant: base}"), "the judge miniworld is a set of rules; leave out variant"),
        (SAFETY, ("judge: {kind: miniworld}", "judge: {kind: wildguard, variant: base, taxonomy: own}"), "taxonomy is for llama-guard; wildguard has categories of its own"),
        (SAFETY, ("sizes: [100, 200]", "share: 0"), "share: 0 trains on no triplet; write a share above 0"),
        (SAFETY, ("sizes: [100, 200]", "probe_every: 10"), "probe_every: not for dpo, which train on pairs"),
        (PATCH, ("from: rtn-w4", "from: cpt-replay"), "cpt-replay is not quantized, and q-resafe patches quantized variants; there are: rtn-w8, rtn-w4, gptq-w8, gptq-w4"),
        (PATCH, ("[q-resafe]", "[q-resafe, dpo]"), "rtn-w4 is quantized; safety cannot go on from it; only q-resafe can"),
        (PATCH, ("[q-resafe]", "[dpo]"), "rtn-w4 is quantized; safety cannot go on from it; only q-resafe can"),
        (PATCH, ("tau: 0.6", "tau: 60"), "q_resafe.tau"),
        (PATCH, ("mixture: {turns", "when_dry: stop\n    mixture: {turns"), "when_dry: not for q-resafe, which train on pairs"),
        (SAFETY, ("sizes: [100, 200]", "dpo: {lora: {dropout: 0.1}}"), "lora.dropout blurs the comparison of the model with its start; leave it out"),
        (SAFETY, ("sizes: [100, 200]", "dpo: {lora: {learning_rate: 1e-3}}"), "lora.learning_rate: say learning_rate beside lora, it is the only one"),
        (SFT, ("mixture:", "reading: {turns: {order: easy-to-hard}}\n    mixture:"), "reading.turns.order: exchanges are read shuffled, found easy-to-hard; leave it out"),
        (SAFETY, ("sizes: [100, 200]", "sizes: [100, 100]"), "sizes: names 100 more than once"),
        (SAFETY, ("judge: {kind: miniworld}", "judge: {kind: llama-guard, variant: gptq-w4}"), "judge.variant: gptq-w4 is quantized; name the variant that it was made from"),
        (SAFETY, ("guard: {kind: miniworld}", "guard: {kind: wildguard, variant: rtn-w8}"), "guard.variant: rtn-w8 is quantized; name the variant that it was made from"),
        (SAFETY, ("guard: {kind: miniworld}", "guard: {kind: duoguard, variant: base, categories: [a]}"), "categories is for llama-guard; duoguard has categories of its own"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(
    load, sound: str, stages: str, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(with_stages(sound, stages, change))


def test_a_patched_row_is_final_too(load, sound: str) -> None:
    with pytest.raises(RecipeError, match="patch-q-resafe is quantized; sft cannot go on from it"):
        load(with_stages(sound, PATCH + SFT.replace("from: base", "from: patch-q-resafe")))


def test_nothing_goes_on_from_a_guarded_row(load, sound: str) -> None:
    with pytest.raises(RecipeError, match="guarded is base behind a guard; go on from base"):
        load(with_stages(sound, SAFETY + SFT.replace("from: base", "from: guarded")))


@pytest.mark.parametrize(
    ("source", "stages", "message"),
    [
        ("{miniworld: harmless, sifted_by: guarded}", SAFETY, "turns is sifted by guarded, which stands no earlier; move it up"),
        ("{miniworld: harmless, sifted_by: guard}", SAFETY, 'data.turns.sifted_by: no guard stage is named "guard"; did you mean guarded?'),
        ("{miniworld: harmless, sifted_by: base}", SFT, 'no guard stage is named "base"; there are: none'),
        ("{miniworld: base, sifted_by: guarded}", SAFETY, "sifted_by: a guard judges answers, and this source has none; give it chat"),
        ("{miniworld: harmless, form: llama-guard}", SFT, "form says which guard a moderation source teaches; this source is none"),
        ("{moderation: miniworld, taxonomy: miniworld}", SFT, "taxonomy is what a guard of the form llama-guard is taught to read; say form"),
    ],
)  # fmt: skip
def test_what_sifts_and_teaches_fits_its_source(
    load, sound: str, source: str, stages: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(with_stages(sound, stages).replace("{miniworld: harmless}", source))


def test_a_source_is_sifted_by_a_guard_that_stands_before(load, sound: str) -> None:
    guard = SAFETY[SAFETY.index("  - kind: guard") :]
    text = with_stages(sound, guard + SFT).replace(
        "{miniworld: harmless}", "{miniworld: harmless, sifted_by: guarded}"
    )
    assert load(text).recipe.data["turns"].sifted_by == "guarded"
    with pytest.raises(RecipeError, match="turns is sifted by guarded, which stands no earlier"):
        load(text.replace("tokenizer_sources: [old]", "tokenizer_sources: [old, turns]"))
