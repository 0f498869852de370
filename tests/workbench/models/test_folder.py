"""Folders that can be trusted load as they are; the others are refused with what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from workbench import models
from workbench.errors import ModelError


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that may be damaged."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def test_loads_what_transformers_loads(tiny_model_folder: Path) -> None:
    tokens = torch.arange(20)[None]
    expected = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    model = models.load(tiny_model_folder)
    assert torch.equal(model(tokens).logits, expected(tokens).logits)
    assert not model.training and model.dtype == torch.float32
    assert models.load(tiny_model_folder, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [True, False])
def test_saved_model_is_the_same_again(tiny_model_folder: Path, tmp_path: Path, tied: bool) -> None:
    model, tokenizer = models.load(tiny_model_folder), models.load_tokenizer(tiny_model_folder)
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    models.save(model, tokenizer, tmp_path / "out", {"name": "a", "base_model": "b", "steps": 3})
    again, tokens = models.load(tmp_path / "out"), torch.arange(20)[None]
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied
    assert models.load_tokenizer(tmp_path / "out")("The river").input_ids == tokenizer("The river").input_ids


def test_rotary_base_is_also_at_the_top_level(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Readers on transformers 4 find it nowhere else."""
    models.save(models.load(tiny_model_folder), models.load_tokenizer(tiny_model_folder), tmp_path, {})
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 500_000.0
    assert models.load(tmp_path).config.rope_parameters["rope_theta"] == 500_000.0


def test_the_card_says_how_it_was_made(tiny_model_folder: Path, tmp_path: Path) -> None:
    notes = {"name": "toy", "base_model": "org/base", "steps": 12}
    models.save(models.load(tiny_model_folder), models.load_tokenizer(tiny_model_folder), tmp_path, notes)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert 'base_model: "org/base"' in card and "# toy" in card and "- steps: 12" in card


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _foreign_config(folder: Path) -> None:
    (folder / "config.json").write_text(
        '{"model_type": "unheard-of", "auto_map": {"AutoConfig": "code.Config"}}'
    )


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)


def _change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _nan(folder: Path) -> None:
    _change(
        folder, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[7].fill_(float("nan"))
    )


def _missing(folder: Path) -> None:
    _change(folder, lambda tensors: [tensors.pop("model.norm.weight")][:0])


def _unexpected(folder: Path) -> None:
    _change(folder, lambda tensors: tensors.update({"model.layers.0.mlp.extra.weight": torch.ones(2)}))


def _mismatched(folder: Path) -> None:
    _change(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))


def _lost_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    )


def _escaping_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (_no_config, "no config.json"),
        (_broken_config, r"config.json: not JSON"),
        (_foreign_config, "'unheard-of' is not an architecture"),
        (_no_weights, "no weights"),
        (_pickled, r"pytorch_model.bin: pickled weights are refused"),
        (_cut, r"model.safetensors: corrupt or cut short"),
        (_garbage, r"model.safetensors: corrupt or cut short"),
        (_nan, r"model.layers.1.mlp.up_proj.weight has 1 of 8192 values that are NaN"),
        (_missing, r"1 missing weights \(model.norm.weight\)"),
        (_unexpected, r"1 unexpected weights \(model.layers.0.mlp.extra.weight\)"),
        (_mismatched, r"1 mismatched weights .*model.norm.weight"),
        (_lost_shard, "model-00001-of-00002.safetensors, which is missing"),
        (_escaping_shard, "not a file of the folder"),
    ],
)
def test_refuses(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=message):
        models.load(folder)


def test_refuses_a_file(folder: Path) -> None:
    with pytest.raises(ModelError, match="not a folder"):
        models.load(folder / "config.json")


def test_refuses_a_folder_without_its_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        models.load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer.json"):
        models.load_tokenizer(folder)


@pytest.mark.parametrize(("name", "parameters"), [("babyllama-0.9M", 969_216), ("stories260K", 260_032)])
def test_real_models(shared_data: Path, name: str, parameters: int) -> None:
    model = models.load(shared_data / "models" / name)
    models.check_tokenizer(model.config, models.load_tokenizer(shared_data / "models" / name))
    assert models.count_parameters(model.config) == parameters
