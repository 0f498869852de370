# ruff: noqa: E501 - a message stands on one line here, as users see it.
import pytest

from workbench import recipe

QUANTIZE = "  - {kind: quantize, name: again, methods: [rtn], bits: [3]}\nevaluate:"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        # Sources.
        ("mixture: {young: 1.0}", "mixture: {yuong: 1.0}", 'r.yaml:25:15  stages[1].cpt.mixture.yuong: no source "yuong" in data; did you mean young? there are: old, young'),
        ("0.3, mixture: {old: 1.0}", "0.3, mixture: {x: 1.0}", 'r.yaml:26:36  stages[1].cpt.replay.mixture.x: no source "x" in data; there are: old, young'),
        ("calibration: {mixture: {old: 1.0}", "calibration: {mixture: {x: 1.0}", 'r.yaml:35:29  stages[2].quantize.calibration.mixture.x: no source "x" in data; there are: old, young'),
        ("sources: [old]", "sources: [old, x]", 'r.yaml:12:30  model.new.tokenizer_sources[1]: no source "x" in data; there are: old, young'),
        # Variants.
        ("    from: cpt-replay\n", "", "r.yaml:31:5  stages[2].quantize.from: missing; the stage before makes 2 variants, name one: cpt-full, cpt-replay"),
        ("from: cpt-replay", "from: cpt-reply", 'r.yaml:32:5  stages[2].quantize.from: no variant "cpt-reply" exists at this point; did you mean cpt-replay? there are: base, cpt-full, cpt-replay'),
        ("kind: cpt", "kind: cpt\n    from: rtn-w4", 'r.yaml:24:5  stages[1].cpt.from: no variant "rtn-w4" exists at this point; there are: base'),
        ("battery: miniworld", "battery: miniworld\n  rows: [base, rtn-w3]", 'r.yaml:38:16  evaluate.rows[1]: no variant "rtn-w3"; did you mean rtn-w8? there are: base, cpt-full, cpt-replay, rtn-w8, rtn-w4, gptq-w8, gptq-w4'),
        ("base.retained", "bose.retained", 'r.yaml:39:3  expect.bose.retained.facts.acc: begins with no variant; no variant "bose"; did you mean base? there are: base, cpt-full, cpt-replay, rtn-w8, rtn-w4, gptq-w8, gptq-w4'),
        ("[0.8, 1.0]", "[1.0, 0.8]", "r.yaml:39:3  expect.base.retained.facts.acc: [1.0, 0.8] is not a range: write [low, high]"),
        ("evaluate:", QUANTIZE.replace("rtn]", "rtn], from: rtn-w8"), "r.yaml:36:51  stages[3].quantize.from: rtn-w8 is quantized; quantize cannot go on from it"),
        ("evaluate:", QUANTIZE.replace("name: again", "from: base").replace("[3]", "[4]"), "r.yaml:36:5  stages[3].quantize.name: variant rtn-w4 is made by stages[2] already; give this stage another name"),
        ("evaluate:", "  - {kind: load, name: base, model: {path: x}}\nevaluate:", "r.yaml:36:18  stages[3].load.name: variant base is made by stages[0] already; give this stage another name"),
        # Order.
        ("kind: cpt\n    methods: [full, replay]\n", "kind: pretrain\n    name: two\n", "r.yaml:23:5  stages[1].pretrain.kind: pretrain must be the first stage; go on with cpt"),
        ("evaluate:", "  - {kind: load, name: x, model: {new: {vocab_size: 8, hidden_size: 8, intermediate_size: 8, layers: 1, heads: 1, kv_heads: 1, context: 8, tokenizer_sources: [old]}}}\nevaluate:", "r.yaml:36:35  stages[3].load.model.new: load brings a finished model; give path or hub"),
        # Repeats.
        ("[full, replay]", "[full, replay, full]", "r.yaml:24:5  stages[1].cpt.methods: names full more than once"),
        ("bits: [8, 4]", "bits: [8, 4, 8, 4]", "r.yaml:34:5  stages[2].quantize.bits: names 8, 4 more than once"),
        ("sources: [old]", "sources: [old, old]", "r.yaml:12:5  model.new.tokenizer_sources: names old more than once"),
        # Lengths and batches.
        ("    context: 256", "    context: 100", "r.yaml:21:5  stages[0].pretrain.sequence_length: 128 is longer than model.new.context, which is 100"),
        ("16, sequence_length: 128", "16, sequence_length: 512", "r.yaml:35:55  stages[2].quantize.calibration.sequence_length: 512 is longer than model.new.context, which is 256"),
        ("evaluate:", "engine: {processes: 3}\nevaluate:", "r.yaml:20:5  stages[0].pretrain.batch_size: 16 is not a multiple of 3 (engine.processes 3 x micro_batch_size 1); use 15 or 18"),
        ("kind: pretrain", "kind: pretrain\n    micro_batch_size: 32", "r.yaml:21:5  stages[0].pretrain.batch_size: 16 is not a multiple of 32 (engine.processes 1 x micro_batch_size 32); use 32"),
        ("evaluate:", "engine: {zero_stage: 2, offload: parameters}\nevaluate:", "r.yaml:36:25  engine.offload: parameters needs zero_stage 3; found 2"),
        ("evaluate:", "engine: {processes: 4, nodes: 2}\nevaluate:", "r.yaml:36:1  engine: several nodes need a hostfile, or launcher: slurm"),
        ("[full, replay]", "[full, control-llm]\n    control_llm: {blocks: 3}", "r.yaml:25:19  stages[1].cpt.control_llm.blocks: 3 does not divide model.new.layers, which is 2; use one of [1, 2]"),
        # Paths.
        ("$WORKBENCH_DATA/text/young.txt", "$HOME/young.txt", 'r.yaml:15:11  data.young.path: found "$HOME/young.txt"; allowed: a path, with nothing to expand but $WORKBENCH_DATA/ at its beginning'),
        ("$WORKBENCH_DATA/text/young.txt", "a/$WORKBENCH_DATA/b", 'r.yaml:15:11  data.young.path: found "a/$WORKBENCH_DATA/b"; allowed: a path, with nothing to expand but $WORKBENCH_DATA/ at its beginning'),
        ("$WORKBENCH_DATA/text/young.txt", "~/young.txt", 'r.yaml:15:11  data.young.path: found "~/young.txt"; allowed: a path, with nothing to expand but $WORKBENCH_DATA/ at its beginning'),
        ("{path: $WORKBENCH_DATA/text", "{field: $WORKBENCH_DATA, path: text", "r.yaml:15:11  data.young.field: $WORKBENCH_DATA is expanded at the beginning of a path only"),
    ],
)  # fmt: skip
def test_one_fault_between_sections_is_one_line(faults, old: str, new: str, line: str) -> None:
    assert line in faults((old, new))


def test_a_new_model_is_pretrained_and_a_finished_one_is_not(faults, load, sound: str) -> None:
    new = sound[sound.index("model:") : sound.index("data:")]
    said = faults(
        (new, "model: {path: x}\n"),
        ("    methods: [full, replay]\n", "    methods: [full, replay]\n    from: base\n"),
    )
    assert (
        "r.yaml:8:5  stages[0].pretrain.kind: pretrain needs model.new; a finished model goes on with cpt"
        in said
    )
    pretrain = sound[sound.index("  - kind: pretrain") : sound.index("  - kind: cpt")]
    assert faults((pretrain, "")) == [
        "r.yaml:17:5  stages[0].cpt.from: there is no model to go on from; the first stage must be pretrain",
        'r.yaml:33:3  expect.base.retained.facts.acc: begins with no variant; no variant "base"; '
        "there are: cpt-full, cpt-replay, rtn-w8, rtn-w4, gptq-w8, gptq-w4",
    ]
    assert faults((pretrain, "  - {kind: load, name: base, model: {path: x}}\n")) == [
        "r.yaml:17:6  stages[0].load.kind: a new model must be pretrained first; load comes later",
    ]


def test_batches_that_divide_are_accepted(load, sound: str) -> None:
    loaded = load(
        sound, "engine.processes=2", "stages.pretrain.micro_batch_size=4", "stages.cpt.micro_batch_size=8"
    )
    assert loaded.recipe.engine.processes == 2


@pytest.mark.parametrize(
    "path", ["/abs/a.txt", "../up/a.txt", "$WORKBENCH_DATA", "$WORKBENCH_DATA/a.txt", "a b/ü.txt"]
)
def test_inputs_may_lie_anywhere(load, sound: str, path: str) -> None:
    assert load(sound, f"data.young.path={path}").recipe.data["young"].path == path


def test_a_loaded_model_has_a_context_of_its_own(load, sound: str) -> None:
    stages = "  - {kind: load, name: big, model: {path: x}}\n" + QUANTIZE.replace("[rtn]", "[gptq]").replace(
        "bits: [3]", "bits: [3], calibration: {mixture: {old: 1.0}, sequence_length: 4096}"
    )
    loaded = load(sound.replace("evaluate:", stages))
    assert recipe.variants(loaded.recipe)[-1].parent == "big"


def test_an_unreadable_section_is_not_blamed_twice(faults) -> None:
    # The variants of the broken stage are unknown, so nobody who names one is accused.
    assert faults(
        ("methods: [full, replay]", "methods: [ful]"),
        ("battery: miniworld", "battery: miniworld\n  rows: [x]"),
    ) == [
        'r.yaml:24:15  stages[1].cpt.methods[0]: found "ful"; did you mean full? allowed: "full", "replay", "control-llm", "llama-pro", "lora", "l2sp", "ewc", "distill" or "freeze"'
    ]
