# ruff: noqa: E501 - a message stands on one line here, as users see it.
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ConfigDict

from workbench.errors import RecipeError
from workbench.recipe import read
from workbench.recipe.inputs import Source
from workbench.recipe.quantization import QuantizationMethod
from workbench.recipe.validation import shown

NAME = "a name of letters, digits, '.', '_' and '-', a letter or digit first, at most 64 characters"
KINDS = (
    '"cpt", "guard", "load", "merge", "merge-back", "pretrain", "quantize", "safety", "sft" or "vocabulary"'
)
_NAMES = [f'"{name}"' for name in get_args(get_args(Source.model_fields["miniworld"].annotation)[0])]
CORPORA = " or ".join((", ".join(_NAMES[:-1]), _NAMES[-1]))
METHODS = ", ".join(f'"{name}"' for name in get_args(QuantizationMethod)).replace(', "int8"', ' or "int8"')
ENVIRONMENT = "secrets do not belong in a recipe; remove it and set it in the environment, such as HF_TOKEN"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        # A value of the wrong type, range or form: what was found against what is allowed.
        ("    layers: 2\n", "    layers: two\n", 'r.yaml:8:5  model.new.layers: found "two"; allowed: a whole number above 0'),
        ("    layers: 2\n", "    layers: 2.5\n", "r.yaml:8:5  model.new.layers: found 2.5; allowed: a whole number above 0"),
        ("    layers: 2\n", "    layers: 0\n", "r.yaml:8:5  model.new.layers: found 0; allowed: a whole number above 0"),
        ("    layers: 2\n", "    layers: true\n", "r.yaml:8:5  model.new.layers: found true; allowed: a whole number above 0"),
        ("    layers: 2\n", "    layers: 02\n", 'r.yaml:8:5  model.new.layers: found "02"; allowed: a whole number above 0'),
        ("    layers: 2\n", "    layers:\n", "r.yaml:8:5  model.new.layers: found nothing; allowed: a whole number above 0"),
        ("    layers: 2\n", "    layers: [2]\n", "r.yaml:8:5  model.new.layers: found [2]; allowed: a whole number above 0"),
        ("learning_rate: 1e-3", "learning_rate: .inf", 'r.yaml:22:5  stages[0].pretrain.learning_rate: found ".inf"; allowed: a number above 0'),
        ("bits: [8, 4]", "bits: [8, 9]", "r.yaml:34:15  stages[2].quantize.bits[1]: found 9; allowed: a number from 1 to 8"),
        ("bits: [8, 4]", "bits: []", "r.yaml:34:5  stages[2].quantize.bits: found []; allowed: a list of at least one, each a number from 1 to 8"),
        ("bits: [8, 4]", "bits: 4", "r.yaml:34:5  stages[2].quantize.bits: found 4; allowed: a list of at least one, each a number from 1 to 8"),
        ("bits: [8, 4]", "bits: [8]\n    group_size: abc", 'r.yaml:35:5  stages[2].quantize.group_size: found "abc"; allowed: a whole number above 0, or "channel"'),
        ("bits: [8, 4]", "bits: [8]\n    group_size: chanel", 'r.yaml:35:5  stages[2].quantize.group_size: found "chanel"; did you mean channel? allowed: a whole number above 0, or "channel"'),
        ("bits: [8, 4]", "bits: [8]\n    symmetric: yes", 'r.yaml:35:5  stages[2].quantize.symmetric: found "yes"; allowed: true or false'),
        ("[rtn, gptq]", "[rtn, awk]", 'r.yaml:33:20  stages[2].quantize.methods[1]: found "awk"; did you mean awq? allowed: ' + METHODS),
        ("ratio: 0.3", "ratio: 1", "r.yaml:26:14  stages[1].cpt.replay.ratio: found 1; allowed: a number above 0 and below 1"),
        ("name: small", "name: 2024", "r.yaml:1:1  name: found 2024; allowed: a name of lower-case letters, digits, '.', '_' and '-', with '/' between folders, at most 128 characters; put quotes around it"),
        ("name: small", "name: ../up", "r.yaml:1:1  name: found \"../up\"; allowed: a name of lower-case letters, digits, '.', '_' and '-', with '/' between folders, at most 128 characters"),
        ("battery: miniworld", "battery: a/b", f'r.yaml:37:3  evaluate.battery: found "a/b"; allowed: {NAME}'),
        ("battery: miniworld", "battery: miniworld\n  rows: al", 'r.yaml:38:3  evaluate.rows: found "al"; did you mean all? allowed: a list, each text, or "all"'),
        ("battery: miniworld", "battery: miniworld\n  rows: [1]", "r.yaml:38:10  evaluate.rows[0]: found 1; allowed: text; put quotes around it"),
        ("  old: {miniworld: base}", "  old: {miniworld: bass}", 'r.yaml:14:9  data.old.miniworld: found "bass"; did you mean base? allowed: ' + CORPORA),
        ("[0.8, 1.0]", "[0.8]", "r.yaml:39:3  expect.base.retained.facts.acc[1]: missing; needed: a number"),
        ("[0.8, 1.0]", "[0.8, 0.9, 1]", "r.yaml:39:3  expect.base.retained.facts.acc: found [0.8, 0.9, 1]; allowed: a list of a number and a number"),
        ("evaluate:\n", "engine: fast\nevaluate:\n", 'r.yaml:36:1  engine: found "fast"; allowed: a section with the keys processes, nodes, launcher, hostfile, zero_stage, offload, precision, compile, activation_checkpointing'),
        # Missing keys: what is needed, and what it is for.
        ("    tokens: 1e6\n", "", "r.yaml:17:5  stages[0].pretrain.tokens: missing; needed: a whole number above 0 (tokens to train on; rounded down to whole batches)"),
        ("name: small\n", "", "r.yaml:1:1  name: missing; needed: a name of lower-case letters, digits, '.', '_' and '-', with '/' between folders, at most 128 characters"),
        # Unknown keys: the nearest valid one, and all of them where they are few.
        ("    tokens: 1e6", "    tokns: 1e6", "r.yaml:19:5  stages[0].pretrain.tokns: unknown key; did you mean tokens?"),
        ("calibration: {", "calibration: {shots: 3, ", "r.yaml:35:19  stages[2].quantize.calibration.shots: unknown key; valid keys: mixture, sequences, sequence_length, documents"),
        ("ratio: 0.3", "ration: 0.3", "r.yaml:26:14  stages[1].cpt.replay.ration: unknown key; did you mean ratio? valid keys: ratio, mixture"),
        # Tagged unions name their tags.
        ("kind: quantize", "kind: quantise", f'r.yaml:31:5  stages[2].quantize.kind: found "quantise"; did you mean quantize? allowed: {KINDS}'),
        ("kind: quantize", "kind: 4", f"r.yaml:31:5  stages[2].kind: found 4; allowed: {KINDS}"),
        ("kind: quantize", "bits: 3", None),
        # Sections that are right key by key.
        ("    heads: 4\n", "    heads: 5\n", "r.yaml:4:3  model.new: heads 5 does not divide hidden_size 64"),
        ("mixture: {young: 1.0}", "mixture: {young: 0.7, old: 0.2}", "r.yaml:25:5  stages[1].cpt.mixture: weights must be at least 0 and sum to 1; they sum to 0.9"),
        ("    replay: {ratio: 0.3, mixture: {old: 1.0}}\n", "", "r.yaml:23:5  stages[1].cpt: the method replay needs the section replay"),
        ("  old: {miniworld: base}", "  old: {miniworld: base, hub: a/b}", "r.yaml:14:3  data.old: needs exactly one of miniworld, requests, moderation, path, hub, prepared, synthetic, generated; found miniworld and hub"),
        ("    tokens: 1e6", "    tokens: 100", "r.yaml:17:5  stages[0].pretrain: tokens 100 is less than one batch (16 x 128 = 2048)"),
        # Secrets.
        ("  old: {miniworld: base}", "  old: {hub: hf_abcdefghijklmnopqrst}", f"r.yaml:14:9  data.old.hub: this looks like an access token; {ENVIRONMENT}"),
        ("name: small", "name: small\napi_key: x", f"r.yaml:2:1  api_key: unknown key; {ENVIRONMENT}"),
    ],
)  # fmt: skip
def test_one_fault_is_one_line(faults, old: str, new: str, line: str | None) -> None:
    said = faults((old, new))
    if line is None:
        assert said[0] == f"r.yaml:31:5  stages[2].kind: missing; needed: {KINDS}"
    else:
        assert line in said


def test_misspelt_name_of_a_source_is_not_a_name(faults) -> None:
    assert faults(("  old: {miniworld: base}", '  old: {miniworld: base}\n  "a b": {path: x.txt}')) == [
        f"r.yaml:15:3  data.a b: not a valid key; allowed: {NAME}"
    ]


def test_all_faults_are_reported_at_once_in_the_order_of_the_file(faults) -> None:
    said = faults(
        ("description:", "descripton:"),
        ("    layers: 2", "    layers: -2"),
        ("tokenizer_sources: [old]", "tokenizer_sources: [odl]"),
        ("    tokens: 1e6", "    tokns: many"),
        ("kind: cpt", "kind: ctp"),
        ("    tokens: 1e5", "    tokens: 1"),
        ("from: cpt-replay", "from: cpt-reply\n    from: cpt-full"),
        ("base.retained", "bass.retained"),
        overrides=("engine.proceses=2", "engine.zero_stage=9"),
    )
    assert said == [
        "r.yaml:2:1  descripton: unknown key; did you mean description? "
        "valid keys: name, description, seed, replicates, model, data, prepare, stages, evaluate, engine, expect",
        "r.yaml:8:5  model.new.layers: found -2; allowed: a whole number above 0",
        'r.yaml:12:25  model.new.tokenizer_sources[0]: no source "odl" in data; did you mean old? there are: old, young',
        "r.yaml:19:5  stages[0].pretrain.tokns: unknown key; did you mean tokens?",
        'r.yaml:19:5  stages[0].pretrain.tokens: found "many"; allowed: a whole number above 0',
        f'r.yaml:23:5  stages[1].cpt.kind: found "ctp"; did you mean cpt? allowed: {KINDS}',
        "r.yaml:23:5  stages[1].cpt: tokens 1 is less than one batch (16 x 128 = 2048)",
        "r.yaml:33:5  stages[2].quantize.from: duplicate key; it stands at line 32 already",
        "set: engine.proceses  unknown key; did you mean processes? "
        "valid keys: processes, nodes, launcher, hostfile, zero_stage, offload, precision, compile, activation_checkpointing",
        "set: engine.zero_stage  engine.zero_stage: found 9; allowed: 0, 1, 2 or 3",
    ]


def test_a_misspelt_key_hides_no_fault_behind_it(faults) -> None:
    assert faults(("replay: {ratio: 0.3, mixture", "repaly: {ratio: 3, mixtur")) == [
        "r.yaml:26:5  stages[1].cpt.repaly: unknown key; did you mean replay?",
        "r.yaml:26:14  stages[1].cpt.replay.ratio: found 3; allowed: a number above 0 and below 1",
        "r.yaml:26:24  stages[1].cpt.replay.mixtur: unknown key; did you mean mixture? valid keys: ratio, mixture",
    ]


def test_no_message_repeats_a_secret(faults) -> None:
    secret = "hf_" + "x" * 34
    said = faults(
        ("name: small", f"name: {secret}\ntoken: {secret}"),
        ("tokens: 1e6", f"tokens: {secret}"),
        overrides=(f"stages.0.clip={secret}", f"model.new.layers={secret}"),
    )
    assert len(said) >= 5
    assert secret not in "\n".join(said)


@pytest.mark.parametrize(
    "text", ["models/hf_checkpoints", "sk-wikipedia-2023-dump", "risk-assessmentassessment"]
)
def test_ordinary_names_are_no_secrets(load, sound: str, text: str) -> None:
    assert load(sound, f"data.young.path={text}").recipe.data["young"].path == text


@pytest.mark.parametrize("value", ["x" * 500, list(range(500)), {"a": "y" * 500}, "line\nbreak", None])
def test_found_values_are_short_and_on_one_line(value: object) -> None:
    assert len(shown(value)) <= 60 and "\n" not in shown(value)


class Battery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tasks: list[str]
    limit: int | None = None


def test_other_files_get_the_same_messages(tmp_path: Path) -> None:
    file = tmp_path / "battery.yaml"
    file.write_text("tasks: [a, b]\nlimit: 5\n")
    assert read(file, Battery) == Battery(tasks=["a", "b"], limit=5)
    file.write_text("tasks: a\nlimt: x\n")
    with pytest.raises(RecipeError) as caught:
        read(file, Battery)
    assert str(caught.value).splitlines() == [
        f'{file}:1:1  tasks: found "a"; allowed: a list, each text',
        f"{file}:2:1  limt: unknown key; did you mean limit? valid keys: tasks, limit",
        f'{file}:2:1  limit: found "x"; allowed: a whole number',
    ]
