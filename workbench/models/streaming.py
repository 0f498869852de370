"""Models without their decoder blocks, which are read from the safetensors files one at a time.

What works block by block then holds the embeddings, the head, one block, and what it makes of the others,
however large the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from workbench.models.folder import check_finite, check_readable, load, load_config, weight_files
from workbench.models.walk import blocks

Fill = Callable[[str], None]


def stream(path: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Fill]:
    """Load a model but for its decoder blocks, which stay on the meta device until they are filled.

    A model whose files do not have its tensors one for one, under the same names and shapes, is loaded
    whole: a quantized one, one that transformers converts, or one that is not sound, which `load` refuses.

    Args:
        path: a Hugging Face folder.
        dtype: of the weights in memory.

    Returns:
        The model in evaluation mode, and what brings the weights of a block, given by its dotted name.

    Raises:
        ModelError: as `load`; a weight of a block that is not a number is found when the block is filled.
    """
    config = load_config(path)
    files = _files_by_tensor(path)
    model = None if hasattr(config, "quantization_config") else _empty(path, config, dtype)
    if model is None or not _fits(model, files):
        return load(path, dtype), lambda block: None

    prefixes = tuple(f"{name}." for name, module in model.named_modules() if module in [*blocks(model)])
    outside = [name for name in files if not name.startswith(prefixes)]
    model.load_state_dict(_read(path, files, outside, dtype), strict=False, assign=True)
    model.tie_weights()

    def fill(block: str) -> None:
        prefix = f"{block}."
        tensors = _read(path, files, [name for name in files if name.startswith(prefix)], dtype)
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        model.get_submodule(block).load_state_dict(own, assign=True)

    return model.eval(), fill


def _empty(path: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model with all parameters on the meta device; buffers that are in no file are computed."""
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
        )
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
    return model


def _files_by_tensor(path: Path) -> dict[str, Path]:
    """The file of each tensor."""
    found: dict[str, Path] = {}
    for file in weight_files(path):
        check_readable(file)
        with safe_open(file, framework="pt") as tensors:
            found |= dict.fromkeys(tensors.keys(), file)
    return found


def _fits(model: PreTrainedModel, files: dict[str, Path]) -> bool:
    """Whether the files have every tensor of the model, tied ones once, and no other."""
    expected = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }
    if expected.keys() != files.keys() or model._keep_in_fp32_modules_strict:
        return False
    for file in set(files.values()):
        with safe_open(file, framework="pt") as tensors:
            if any(tensors.get_slice(name).get_shape() != expected[name] for name in tensors.keys()):  # noqa: SIM118
                return False
    return True


def _read(path: Path, files: dict[str, Path], names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of these names, checked, in the dtype in memory."""
    found: dict[str, Tensor] = {}
    by_file: dict[Path, list[str]] = {}
    for name in names:
        by_file.setdefault(files[name], []).append(name)
    for file, own in by_file.items():
        with safe_open(file, framework="pt") as tensors:
            for name in own:
                tensor = tensors.get_tensor(name)
                found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    check_finite(path, found)
    return found
