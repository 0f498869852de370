"""A streamed model is the whole one, bit for bit, one block at a time; what does not fit is loaded whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from workbench import models
from workbench.errors import ModelError

BLOCKS = ("model.layers.0", "model.layers.1")


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that may be changed."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def bytes_held(model: PreTrainedModel) -> int:
    held = [*model.parameters(), *model.buffers()]
    return sum(tensor.nbytes for tensor in held if tensor.device.type != "meta")


def assert_same(model: PreTrainedModel, expected: PreTrainedModel) -> None:
    for found, wanted in ((model.state_dict(), expected.state_dict()), buffers(model, expected)):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert all(found[name].dtype == wanted[name].dtype for name in wanted)
    tokens = torch.arange(20)[None]
    assert torch.equal(model(tokens).logits, expected(tokens).logits)
    assert not model.training


def buffers(*both: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
    return [dict(model.named_buffers()) for model in both]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("tied", [True, False])
def test_filled_block_by_block_it_is_the_whole_model(
    tiny_model_folder: Path, tmp_path: Path, dtype: torch.dtype, shards: int, tied: bool
) -> None:
    whole = models.load(tiny_model_folder)
    if tied:
        whole.config.tie_word_embeddings = True
        whole.tie_weights()
    size = sum(parameter.nbytes for parameter in whole.parameters())
    whole.save_pretrained(tmp_path / "model", max_shard_size=size if shards == 1 else size // shards)
    assert len(list((tmp_path / "model").glob("*.safetensors"))) >= shards

    model, fill = models.stream(tmp_path / "model", dtype)
    assert {name for name, p in model.named_parameters() if p.device.type == "meta"} == {
        name for name, _ in model.named_parameters() if name.startswith(BLOCKS)
    }
    for block in BLOCKS:
        fill(block)
    assert_same(model, models.load(tmp_path / "model", dtype))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_before_it_is_filled_the_blocks_take_no_memory(tiny_model_folder: Path) -> None:
    model, fill = models.stream(tiny_model_folder)
    whole = models.load(tiny_model_folder)
    block = sum(parameter.nbytes for parameter in models.blocks(whole)[0].parameters())
    assert bytes_held(model) == bytes_held(whole) - 2 * block
    fill(BLOCKS[1])
    assert bytes_held(model) == bytes_held(whole) - block


def test_saved_it_is_the_same_folder(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(tiny_model_folder)
    model, fill = models.stream(tiny_model_folder)
    for block in BLOCKS:
        fill(block)
    models.save(model, tokenizer, tmp_path / "streamed", {})
    models.save(models.load(tiny_model_folder), tokenizer, tmp_path / "whole", {})
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "streamed").iterdir()) == names
    for name in names:
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_names_that_only_transformers_can_convert_are_loaded_whole(folder: Path) -> None:
    """A base model's folder has no `model.` before its names, and no head."""
    inner = AutoModelForCausalLM.from_pretrained(folder, tie_word_embeddings=True)
    inner.model.save_pretrained(folder)
    assert "layers.0.mlp.up_proj.weight" in load_file(folder / "model.safetensors")
    model, fill = models.stream(folder)
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    fill(BLOCKS[0])
    assert_same(model, models.load(folder))


def test_weights_that_are_not_numbers_are_found_when_they_are_read(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[7] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _, fill = models.stream(folder)
    fill(BLOCKS[0])
    with pytest.raises(
        ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight has 1 of \d+ values that are NaN"
    ):
        fill(BLOCKS[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.norm.weight": torch.ones(3)}, "mismatched"),
        ({"model.norm.wait": torch.ones(64)}, "unexpected"),
    ],
)
def test_weights_that_are_not_those_of_the_config_are_refused(
    folder: Path, change: dict[str, torch.Tensor], said: str
) -> None:
    tensors = load_file(folder / "model.safetensors") | change
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=said):
        models.stream(folder)
