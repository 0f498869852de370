"""Hugging Face folders: read with suspicion, written so that other readers of the format agree.

Weights are safetensors alone. Pickled weights can run code when they are opened, so they are refused
and never looked into; code that comes with a model is not run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from workbench.errors import ModelError, RunError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_INDEX = "model.safetensors.index.json"

# Bars that flash by for every folder; the workbench shows progress of its own.
disable_progress_bar()
if not torch.cuda.is_available():
    # Saving a model imports DeepSpeed, which remarks on every machine without a GPU unless it is told.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def load(path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load any causal language model from its folder, in evaluation mode.

    Args:
        path: a Hugging Face folder.
        dtype: of the weights in memory; quantized weights keep their own.

    Raises:
        ModelError: not a model folder; pickled, corrupt, missing or unexpected weights; a weight that
            is not a number; an architecture that needs code of its own.
    """
    config = load_config(path)
    for file in weight_files(path):
        check_readable(file)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # so that they are reported here, by name, with the others
        output_loading_info=True,
    )
    model: PreTrainedModel = loaded[0]
    found: dict[str, Any] = loaded[1]
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[problem]:
            names = ", ".join(sorted(str(name) for name in found[problem])[:5])
            raise ModelError(
                f"{path}: {len(found[problem])} {problem.replace('_keys', '')} weights ({names}); "
                "the weights are not those of config.json: take both from the same model"
            )
    check_finite(path, model.state_dict())
    model.eval()
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model folder.

    Raises:
        ModelError: the folder has no tokenizer.json, or it is not one.
    """
    file = path / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{path}: no tokenizer.json; put the model's tokenizer beside its weights")
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not JSON ({error}); fetch the tokenizer again") from error
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, notes: dict[str, Any]
) -> None:
    """Write a model folder: weights, configuration, tokenizer, chat template, model card.

    Args:
        model: any causal language model, quantized or not.
        tokenizer: its tokenizer.
        path: the folder to fill; it is made if it is not there.
        notes: how the model was made, for the model card; `base_model` goes into its front matter.

    Raises:
        RunError: the weights could not be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(path)
    except SafetensorError as error:
        raise RunError(
            f"{path}: the weights could not be written ({error}); make room or make the folder writable, "
            "then start the same command again"
        ) from error
    tokenizer.save_pretrained(path)
    _add_rope_theta(path / "config.json")
    (path / "README.md").write_text(_card(model, notes), encoding="utf-8")


def load_config(path: Path) -> PretrainedConfig:
    """Read the configuration of a model folder, without its weights.

    Raises:
        ModelError: not a model folder, or an architecture that needs code of its own.
    """
    if not path.is_dir():
        raise ModelError(
            f"{path}: {'not a folder' if path.exists() else 'no such folder'}; name a Hugging Face folder"
        )
    file = path / "config.json"
    if not file.is_file():
        raise ModelError(f"{path}: not a model folder, it has no config.json; name a Hugging Face folder")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not JSON ({error}); fetch the model again") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise ModelError(
            f"{file}: no model_type, so it does not say which architecture it is; fetch the model again"
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, trust_remote_code=False, local_files_only=True
        )
        return config
    except ValueError as error:
        raise ModelError(
            f"{file}: model_type {content['model_type']!r} is not an architecture of the installed "
            "transformers, and code that comes with a model is not run; use a built-in architecture"
        ) from error


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a folder: all that the index names, or all that there are.

    Raises:
        ModelError: there are none, only pickled ones, or not those of the index.
    """
    index = path / _INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{index}: not an index of safetensors files ({error!r}); fetch the model again"
            ) from error
        if outside := [name for name in names if Path(name).name != name]:
            raise ModelError(
                f"{index}: names {outside[0]!r}, which is not a file of the folder; fetch the model again"
            )
        if missing := [name for name in names if not (path / name).is_file()]:
            raise ModelError(f"{index}: names {missing[0]}, which is missing; fetch the model again")
        return [path / name for name in names]
    if files := sorted(path.glob("*.safetensors")):
        return files
    if pickles := sorted(file for pattern in _PICKLES for file in path.glob(pattern)):
        raise ModelError(
            f"{pickles[0]}: pickled weights are refused, because opening them can run any code; "
            "convert them to "
            "safetensors with the tool of whoever made the model, in a place that you trust"
        )
    raise ModelError(f"{path}: no weights, neither model.safetensors nor {_INDEX}; fetch the model again")


def check_readable(file: Path) -> None:
    """Refuse a safetensors file that is damaged.

    Raises:
        ModelError: it is corrupt or cut short.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise ModelError(f"{file}: corrupt or cut short ({error}); fetch the file again") from error


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not numbers.

    Raises:
        ModelError: names the first tensor that holds one.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"{path}: {name} has {count} of {tensor.numel()} values that are NaN or infinite; "
                "the model is "
                "damaged: fetch it again, or go back to a checkpoint from before it diverged"
            )


def _add_rope_theta(file: Path) -> None:
    """Repeat the rotary base at the top level: transformers 4 looks only there, and else takes 10000."""
    config = json.loads(file.read_text(encoding="utf-8"))
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None:
        config["rope_theta"] = theta
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(model: PreTrainedModel, notes: dict[str, Any]) -> str:
    """The model card: what indexes read as front matter, then how the model was made."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    base = notes.get("base_model")
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if base:
        quantized = getattr(model.config, "quantization_config", None) is not None
        lines += [
            f"base_model: {json.dumps(base)}",
            f"base_model_relation: {'quantized' if quantized else 'finetune'}",
        ]
    lines += ["---", "", f"# {notes.get('name', type(model).__name__)}", ""]
    lines += [f"{type(model).__name__} with {parameters:,} parameters.", "", "## How it was made", ""]
    lines += [
        f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in notes.items() if key != "name"
    ]
    return "\n".join(lines) + "\n"
