"""Trained quantization in the store: rounded once, trained by the one loop, gone on with after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from workbench import models, recipe
from workbench.errors import RecipeError
from workbench.quantization.huggingface import quantized_linears
from workbench.recipe.schema import Recipe
from workbench.run import forecast
from workbench.run.walk import BUILDERS, RESUMABLE
from workbench.stages.job import Job, jobs_by_name
from workbench.stages.result import StageResult
from workbench.storage import Store
from workbench.training import checkpoint

TEXT = "The river runs past the old mill and under the stone bridge.\n\n" * 200
NAMES = ("qlora-w4", "ir-qlora-w4", "two-db-llm-w2")


class Killed(BaseException):
    """Stands for a process that ends."""


def make(job: Job) -> Path:
    if job.parent:
        make(job.parent)
    kind = job.variant.kind
    return job.store.make(job.fingerprint, lambda out: BUILDERS[kind](job, out), resumable=kind in RESUMABLE)


@pytest.fixture
def plain(tiny_model_folder: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "text.txt").write_text(TEXT)
    tuning = {
        "mixture": {"text": 1},
        "tokens": 4 * 4 * 32,
        "batch_size": 4,
        "sequence_length": 32,
        "learning_rate": 1e-2,
        "checkpoint_every": 1,
    }
    shared = {"kind": "quantize", "from": "base", "group_size": 32, "tuning": tuning}
    small = {"rank": 4}
    return {
        "name": "tuned",
        "description": "d",
        "model": {"path": str(tiny_model_folder)},
        "data": {"text": {"path": str(tmp_path / "text.txt")}},
        "stages": [
            shared
            | {"methods": ["qlora", "ir-qlora"], "bits": [4], "qlora": small}
            | {"ir_qlora": small | {"steps": 2}},
            shared | {"name": "two", "methods": ["db-llm"], "bits": [2]},
        ],
    }


def jobs(plain: dict[str, Any], store: Path) -> dict[str, Job]:
    return jobs_by_name(Recipe.model_validate(plain), Store(store))


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_started_again(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = make(jobs(plain, tmp_path / "whole")[name])
    job = jobs(plain, tmp_path / "cut")[name]
    write = checkpoint.write

    def killed(*arguments: Any) -> None:
        write(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", killed)
        for _ in range(2):
            with pytest.raises(Killed):
                make(job)
    cut = make(job)
    expected, got = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert expected.keys() == got.keys() and all(expected[key].equal(got[key]) for key in expected)
    names = {path.name for path in cut.iterdir()}
    assert names == {"model", "result.json", "layers.jsonl", "metrics.jsonl", "request.json", "MANIFEST.json"}
    assert (cut / "layers.jsonl").read_text() == (whole / "layers.jsonl").read_text()
    assert len(losses(cut)) == 4 and losses(cut) == losses(whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_has_bits_and_layers(plain: dict[str, Any], tmp_path: Path, name: str) -> None:
    job = jobs(plain, tmp_path / "store")[name]
    folder, base = make(job), models.load(Path(plain["model"]["path"]))
    result, model = StageResult.read(folder), models.load(folder / "model")
    linears = quantized_linears(model)
    weights = sum(layer.in_features * layer.out_features for layer in linears.values())
    assert result.nominal_bits == job.variant.bits
    assert result.real_bits == sum(layer.stored_bits for layer in linears.values()) / weights
    assert len(result.details["layers"]) == len(linears) == 14
    assert losses(folder)[-1] < losses(folder)[0]
    for tensor, other in (
        (model.model.embed_tokens.weight, base.model.embed_tokens.weight),
        (model.lm_head.weight, base.lm_head.weight),
        (model.model.layers[1].input_layernorm.weight, base.model.layers[1].input_layernorm.weight),
    ):
        assert torch.equal(tensor, other)
    found = forecast.forecast([jobs(plain, tmp_path / "other")[name]])[0]
    assert found.trainable == result.details["trainable_parameters"]
    assert found.tokens == result.details["tokens"]
    assert found.disk_bytes > (folder / "model" / "model.safetensors").stat().st_size


def test_the_parent_is_rounded_once_for_all_ranks_and_lengths(plain: dict[str, Any], tmp_path: Path) -> None:
    store = tmp_path / "store"
    make(jobs(plain, store)["qlora-w4"])
    kinds = {path.name for path in store.iterdir() if path.is_dir()}
    plain["stages"][0]["qlora"] = {"rank": 2, "alpha": 4}
    plain["stages"][0]["tuning"]["tokens"] //= 2
    make(jobs(plain, store)["qlora-w4"])
    assert len({path.name for path in store.iterdir() if path.is_dir()} - kinds) == 1
    plain["stages"][0]["nf4"] = {"block_size": 32}
    make(jobs(plain, store)["qlora-w4"])
    assert len({path.name for path in store.iterdir() if path.is_dir()} - kinds) == 3


def test_a_fingerprint_says_how_it_was_trained(plain: dict[str, Any], tmp_path: Path) -> None:
    def fingerprints() -> dict[str, str]:
        return {name: job.fingerprint for name, job in jobs(plain, tmp_path).items() if name in NAMES}

    before = fingerprints()
    for stage in plain["stages"]:
        stage["tuning"] = stage["tuning"] | {"learning_rate": 2e-2}
    slower = fingerprints()
    assert all(before[name] != slower[name] for name in NAMES)
    for stage in plain["stages"]:
        stage["tuning"] = stage["tuning"] | {"checkpoint_every": 2}
    assert fingerprints() == slower
    plain["stages"][0]["ir_qlora"]["elastic"] = False
    changed = fingerprints()
    assert {name for name in NAMES if changed[name] != slower[name]} == {"ir-qlora-w4"}


BAD = """\
name: bad
description: d
model:
  new: {vocab_size: 320, hidden_size: 32, intermediate_size: 64, layers: 2, heads: 2, kv_heads: 1,
        context: 32, tokenizer_sources: [old]}
data:
  old: {miniworld: base}
stages:
  - {kind: pretrain, mixture: {old: 1}, tokens: 4096, batch_size: 8, sequence_length: 32, learning_rate: 1e-2}
  - kind: quantize
    methods: [qlora]
    bits: [4]
    tuning: {mixture: {old: 0.5, odl: 0.5}, tokens: 4096, batch_size: 3, sequence_length: 64,
             learning_rate: 1e-3, schedule: {start: last}}
engine: {processes: 2}
"""


def test_faults_of_the_training_are_said_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    with pytest.raises(RecipeError) as caught:
        recipe.load(tmp_path / "bad.yaml")
    said = str(caught.value)
    assert 'no source "odl" in data' in said
    assert "3 is not a multiple of 2" in said
    assert "64 is longer than model.new.context, which is 32" in said
