# ruff: noqa: E501 - a message stands on one line here, as users see it.
import pytest

CPT = "    tokens: 1e5\n"
TOPICS = "    curriculum: {kind: topics, every: 5, texts: {young: held}%s}\n"
HELD = ("  old: {miniworld: base}", "  old: {miniworld: base}\n  held: {miniworld: new_heldout}")


def curriculum(text: str) -> tuple[str, str]:
    return CPT, f"{CPT}    curriculum: {text}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: staged, points: [{tokens: 5e4, mixture: {old: 1.0}}]}", 'points[0].mixture.old: no source "old" in the mixture of this stage; there are: young; add it there, with weight 0'),
        ("{kind: linear, points: [{tokens: 2e5, mixture: {young: 1.0}}]}", "points[0].tokens: 200000 lies behind the end of the stage, 100000 tokens"),
        ("{kind: linear, points: [{tokens: 5e4, mixture: {young: 0.7}}]}", "points[0].mixture: weights must be at least 0 and sum to 1; they sum to 0.7"),
        ("{kind: linear, points: [{tokens: 5e4, mixture: {young: 1}}, {tokens: 4e4, mixture: {young: 1}}]}", "points must rise in tokens, from above 0; found [50000, 40000]"),
        ("{kind: topics, every: 5, texts: {yuong: held}}", 'texts.yuong: no source "yuong" in the mixture of this stage; did you mean young? there are: young'),
        ("{kind: topics, every: 5, texts: {young: hled}}", 'texts.young: no source "hled" in data; did you mean held? there are: old, held, young'),
        ("{kind: topics, every: 5, texts: {young: young}}", "texts.young: young is trained on; name a text that is held out"),
        ("{kind: topics, every: 5, texts: {young: held}, importance: {yung: 1}}", 'importance.yung: no topic "yung" in texts; did you mean young? there are: young'),
        ("{kind: topics, every: 5, texts: {young: held}, groups: [[young], [young, x]]}", 'groups[1][1]: no topic "x" in texts; there are: young'),
        ("{kind: topics, every: 5, texts: {young: held}, groups: [[young], [young]]}", "groups: every topic is in one group; young is in none or in several"),
        ("{kind: topics, every: 5, texts: {young: held}, floor: 0.8}", "floor: 0.8 for each of young is more than the 0.7 that they share; write at most 0.7"),
        ("{kind: doremi, every: 5, texts: {young: held}, reference: bose}", 'reference: no variant "bose" at this point; did you mean base? there are: base'),
        ("{kind: doremi, every: 5, texts: {young: held}, reference: cpt-full}", 'reference: no variant "cpt-full" at this point; there are: base'),
        ("{kind: bandit, every: 5, floor: 0.9}", "floor: 0.9 for each of young is more than the 0.7 that they share; write at most 0.7"),
        ("{kind: topic, every: 5}", 'kind: found "topic"; did you mean topics?'),
    ],
)  # fmt: skip
def test_a_fault_of_a_curriculum_is_one_line(faults, text: str, said: str) -> None:
    assert any(said in line for line in faults(HELD, curriculum(text))), faults(HELD, curriculum(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reading: {old: {epochs: 2}}", "reading: old is not in the mixture"),
        ("reading: {young: {epochs: 2}}", "reading: epochs ends a source, but when_dry is repeat; say stop or redistribute"),
        ("reading: {young: {resample: dynamic}}", "resample: dynamic draws a part of the source; say how large, with tokens"),
        ("reading: {young: {tokens: 1e4, order: easy-to-hard}}", "a part of a source is drawn at random; leave out tokens, or order"),
        ("when_dry: stpo", 'when_dry: found "stpo"; did you mean stop? allowed: "repeat", "stop" or "redistribute"'),
    ],
)  # fmt: skip
def test_a_fault_of_a_reading_is_one_line(faults, text: str, said: str) -> None:
    assert any(said in line for line in faults((CPT, f"{CPT}    {text}\n"))), faults(
        (CPT, f"{CPT}    {text}\n")
    )


def test_pretraining_has_no_parent_to_take_from(faults) -> None:
    said = faults(("1e6\n", "1e6\n    schedule: {start: last}\n    reading: {old: {order: easy-to-hard}}\n"))
    assert any(
        "schedule.start: last is the rate at which the parent's training ended, but there is none" in line
        for line in said
    )
    assert any("reading.old.order: easy-to-hard needs a model" in line for line in said)


def test_a_loaded_model_has_no_last_rate(faults) -> None:
    said = faults(
        ("  - kind: quantize", "  - {kind: load, name: other, model: {path: x}}\n  - kind: quantize"),
        ("kind: cpt\n", "kind: cpt\n    from: base\n"),
        (CPT, f"{CPT}    schedule: {{start: last}}\n"),
        (
            "  new:\n    vocab_size: 512\n    hidden_size: 64\n    intermediate_size: 128\n    layers: 2\n    heads: 4\n    kv_heads: 2\n    context: 256\n    tokenizer_sources: [old]\n",
            "  path: somewhere\n",
        ),
        (
            "  - kind: pretrain\n    mixture: {old: 1.0}\n    tokens: 1e6\n    batch_size: 16\n    sequence_length: 128\n    learning_rate: 1e-3\n",
            "",
        ),
    )
    assert any(
        "schedule.start: last is the rate" in line and "base is not a training of this recipe" in line
        for line in said
    ), said
