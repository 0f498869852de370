"""A quantized folder is a Hugging Face folder: another process loads it and computes the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from workbench import models, quantization
from workbench.errors import ModelError
from workbench.quantization import Grid, QuantizedLinear
from workbench.quantization.activations import Activations
from workbench.quantization.huggingface import mark_quantized, quantized_linears
from workbench.quantization.methods import nf4, rtn
from workbench.recipe.quantization import Nf4
from workbench.recipe.quantize import Quantize

TOKENS = torch.arange(40)[None]

RELOAD = """
import sys, torch
from transformers import AutoModelForCausalLM
import workbench.quantization
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="sdpa")
torch.set_num_threads(1)
with torch.no_grad():
    logits = model(torch.arange(40)[None]).logits
open(sys.argv[2], "wb").write(logits.numpy().tobytes())
"""


def quantize(folder: Path, out: Path, bits: int, **settings: Any) -> tuple[Any, quantization.Report]:
    model, tokenizer = models.load(folder), models.load_tokenizer(folder)
    method = "gptq" if "gptq" in settings else "rtn"
    section = {
        "kind": "quantize",
        "methods": [method],
        "bits": [bits],
        "calibration": {"mixture": {"text": 1}},
    }
    stage = Quantize.model_validate(section | settings)
    report = quantization.quantize(model, stage, method, bits, [torch.randint(320, (4, 32))], "test")
    models.save(model, tokenizer, out, {"method": method})
    return model, report


VARIANTS: list[tuple[int, dict[str, Any]]] = [
    (8, {"group_size": "channel"}),
    (4, {"group_size": 32, "symmetric": True}),
    (3, {"group_size": 16, "gptq": {"act_order": True}}),
    (2, {"group_size": 64, "gptq": {"act_order": True, "static_groups": True}}),
    (1, {"group_size": 32, "symmetric": True}),
]


@pytest.mark.parametrize(("bits", "settings"), VARIANTS)
def test_reloads_bit_for_bit(
    tiny_model_folder: Path, tmp_path: Path, bits: int, settings: dict[str, Any]
) -> None:
    model, _ = quantize(tiny_model_folder, tmp_path / "q", bits, **settings)
    again = models.load(tmp_path / "q")
    expected, got = model.state_dict(), again.state_dict()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name
    with torch.no_grad():
        assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)


def test_another_process_computes_the_same_logits(
    tiny_model_folder: Path, tmp_path: Path, stranger: Callable[..., None]
) -> None:
    bits, settings = VARIANTS[2]
    model, _ = quantize(tiny_model_folder, tmp_path / "q", bits, **settings)
    with torch.no_grad():
        logits = model(TOKENS).logits
    stranger(RELOAD, tmp_path / "q", tmp_path / "logits")
    assert (tmp_path / "logits").read_bytes() == logits.numpy().tobytes()


@pytest.mark.parametrize(("bits", "settings"), VARIANTS)
def test_real_bits_are_the_bytes_in_the_file(
    tiny_model_folder: Path, tmp_path: Path, bits: int, settings: dict[str, Any]
) -> None:
    _, report = quantize(tiny_model_folder, tmp_path / "q", bits, **settings)
    parts = (".codes", ".scale", ".zero_point", ".g_idx")
    with safe_open(tmp_path / "q" / "model.safetensors", framework="pt") as file:
        stored = [file.get_tensor(name) for name in file.keys() if name.endswith(parts)]  # noqa: SIM118
    weights = sum(
        rows * columns
        for rows, columns in quantization.linear_shapes(models.load(tiny_model_folder)).values()
    )
    assert report.num_weights == weights
    assert report.real_bits == 8 * sum(tensor.nbytes for tensor in stored) / weights


def test_config_says_how_to_read_the_folder(tiny_model_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_model_folder, tmp_path / "q", 4, group_size=32)
    config = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    assert config.pop("real_bits") == pytest.approx(4 + (16 + 4) / 32, abs=0.2)  # zero points are padded
    assert config == {
        "quant_method": "workbench",
        "method": "rtn",
        "bits": 4,
        "layout": {"format": "affine", "bits": 4},
        "layouts": {},
        "activations": None,
    }


def test_saved_again_it_is_the_same_folder(tiny_model_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_model_folder, tmp_path / "q", 3, group_size=32)
    again, tokenizer = models.load(tmp_path / "q"), models.load_tokenizer(tmp_path / "q")
    models.save(again, tokenizer, tmp_path / "again", {})
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "q" / name).read_bytes()


def test_half_precision_in_memory_leaves_scales_alone(tiny_model_folder: Path, tmp_path: Path) -> None:
    model, _ = quantize(tiny_model_folder, tmp_path / "q", 4, group_size=32)
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "q", dtype=torch.bfloat16)
    for name, tensor in model.state_dict().items():
        if name.endswith((".scale", ".codes", ".zero_point")):
            assert torch.equal(half.state_dict()[name], tensor)
    with torch.no_grad():
        assert half(TOKENS).logits.dtype == torch.bfloat16


def test_weights_of_another_shape_are_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_model_folder, tmp_path / "q", 4, group_size=32)
    file = tmp_path / "q" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.codes"
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.codes: shape \[128, 7\].*\[128, 8\]"
    ):
        models.load(tmp_path / "q")


def test_linears_may_differ_in_format_and_all_round_their_inputs(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Mixed precision: one linear has another width, one another format."""
    model, _ = quantize(tiny_model_folder, tmp_path / "q", 4, group_size=32)
    other = models.load(tiny_model_folder)
    for layer in quantized_linears(model).values():
        layer.activations = Activations(8, threshold=6.0)
    for name, weight in (
        ("model.layers.0.mlp.up_proj", lambda W: rtn.quantize(W, Grid(7, 16, symmetric=True))),
        ("model.layers.1.self_attn.v_proj", lambda W: nf4.quantize(W, Nf4())),
    ):
        original = other.get_submodule(name).weight.detach()
        shape = (original.shape[0], original.shape[1])
        kept = QuantizedLinear.from_weight(weight(original), shape, None, Activations(8, threshold=6.0))
        model.set_submodule(name, kept)
    mark_quantized(model, "mixed", 4)
    models.save(model, models.load_tokenizer(tiny_model_folder), tmp_path / "mixed", {})
    config = json.loads((tmp_path / "mixed" / "config.json").read_text())["quantization_config"]
    assert config["activations"] == {"bits": 8, "threshold": 6.0}
    assert config["layouts"] == {
        "model.layers.0.mlp.up_proj": {"format": "affine", "bits": 7},
        "model.layers.1.self_attn.v_proj": {"format": "codebook", "table": "nf4", "block_size": 64},
    }
    again = models.load(tmp_path / "mixed")
    assert all(
        layer.activations == Activations(8, threshold=6.0) for layer in quantized_linears(again).values()
    )
    with torch.no_grad():
        assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)


def test_a_linear_that_is_not_in_the_file_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_model_folder, tmp_path / "q", 4, group_size=32)
    file = tmp_path / "q" / "model.safetensors"
    kept = {name: t for name, t in load_file(file).items() if ".layers.1.mlp.up_proj." not in name}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"no quantized weight of model\.layers\.1\.mlp\.up_proj"):
        models.load(tmp_path / "q")


def test_a_layout_of_another_width_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    quantize(tiny_model_folder, tmp_path / "q", 4, group_size=32)
    path = tmp_path / "q" / "config.json"
    path.write_text(path.read_text().replace('"bits": 4,\n      "format"', '"bits": 3,\n      "format"'))
    assert '"bits": 3' in path.read_text()
    with pytest.raises(ModelError, match=r"q_proj\.codes: shape .* not of one model"):
        models.load(tmp_path / "q")
