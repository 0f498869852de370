"""Fine-tuning goes the whole way under every method: of exchanges answers are learnt, of other text all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import miniworld, models, recipe, storage
from workbench.data import NO_TARGET, TokenFile
from workbench.errors import DataError
from workbench.run import walk
from workbench.training import log

METHODS = ("full", "replay", "lora", "control-llm", "l2sp", "ewc", "distill")
STAGE = f"""\
  - kind: sft
    methods: [{", ".join(METHODS)}]
    mixture: {{assistant: 0.75, new: 0.25}}
    replay: {{ratio: 0.5, mixture: {{old: 1.0}}}}
    control_llm: {{blocks: 2, interpolator: dlerpin}}
    lora: {{rank: 2}}
    ewc: {{strength: 1, mixture: {{assistant: 1.0}}, sequences: 4}}
    tokens: 8192
    batch_size: 8
    sequence_length: 128
    learning_rate: 1e-2
"""
ALONE = STAGE.replace(", ".join(METHODS), "full")


def written(tiny_recipe: Path, folder: Path, stage: str = STAGE) -> Path:
    text = tiny_recipe.read_text().split("  - {kind: cpt")[0].replace("[old]", "[old, assistant]")
    text = text.replace("data:\n", "data:\n  assistant: {miniworld: assistant, documents: [0, 300]}\n")
    path = folder / "sft.yaml"
    path.write_text(text.replace("vocab_size: 320", "vocab_size: 640") + stage)
    return path


@pytest.fixture(scope="module")
def run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    walk.run(recipe.load(written(tiny_recipe, folder)), folder / "runs", "make recipe=sft")
    return folder / "runs" / "tiny"


def stage(run: Path, method: str) -> Path:
    (found,) = (run / "stages").glob(f"??-*-sft-{method}")
    return found


def test_answers_are_learnt_and_plain_text_is_read_as_ever(run: Path) -> None:
    files = storage.read_json(stage(run, "replay") / "request.json")["tokens"]
    labels = {name: TokenFile(Path(folder)).labels for name, folder in files.items()}
    assert labels["assistant"] is not None and labels["new"] is None and labels["old"] is None
    file = TokenFile(Path(files["assistant"]))
    tokenizer = models.load_tokenizer(stage(run, "full") / "model")
    scored = {
        tokenizer.decode(file.labels[start:stop][file.labels[start:stop] != NO_TARGET])
        for start, stop in zip(file.starts, file.starts[1:], strict=False)
    } - {""}
    told = {answer for _, answer in miniworld.exchanges("assistant", 3)[:300]}
    assert scored == {f"{answer}<|eot_id|>" for answer in told}


def test_every_method_begins_with_the_same_answers_and_learns_them(run: Path) -> None:
    losses = {}
    for method in METHODS:
        rows = [row for row in log.read(stage(run, method) / "metrics.jsonl") if "source_losses" in row]
        losses[method] = [row["source_losses"]["assistant"] for row in rows]
    first = {method: found[0] for method, found in losses.items() if method != "replay"}  # draws others
    assert first == pytest.approx(dict.fromkeys(first, first["full"]), rel=1e-4)
    assert all(losses[method][-1] < 0.95 * losses[method][0] for method in ("full", "replay", "l2sp", "ewc"))


def test_an_exchange_longer_than_a_sequence_is_named(tiny_recipe: Path, tmp_path: Path) -> None:
    row = {"q": "Why? " * 90, "a": "So."}
    (tmp_path / "long.jsonl").write_text(json.dumps({**row, "q": "Why?"}) + "\n" + json.dumps(row))
    path = written(tiny_recipe, tmp_path, ALONE)
    source = f"assistant: {{path: {tmp_path}/long.jsonl, chat: {{prompt: q, response: a}}}}"
    path.write_text(
        path.read_text().replace("assistant: {miniworld: assistant, documents: [0, 300]}", source)
    )
    with pytest.raises(DataError, match=r"answers of assistant: row 1, .*Why\? Why\?.*raise sequence_length"):
        walk.run(recipe.load(path), tmp_path / "runs", "make recipe=sft")
