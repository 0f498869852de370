"""Quantized models as Hugging Face folders: config.json says how to read them, transformers loads them.

Importing this module registers the quantizer, after which `AutoModelForCausalLM.from_pretrained` takes
a folder whose config.json has

    "quantization_config": {"quant_method": "workbench", "method": "gptq", "bits": 4, "real_bits": 4.5,
                            "layout": {"format": "affine", "bits": 4}, "layouts": {}, "activations": null}

`layout` is that of all linears but those that `layouts` names. Shapes are those of the tensors in the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from workbench.errors import ModelError
from workbench.quantization.activations import Activations
from workbench.quantization.formats import Layout
from workbench.quantization.linear import QuantizedLinear, linear_shapes

QUANT_METHOD = "workbench"


@register_quantization_config(QUANT_METHOD)
class WorkbenchConfig(QuantizationConfigMixin):
    """The `quantization_config` of config.json.

    Attributes:
        method: the method that chose the values, for the record.
        bits: nominal bits a weight, for the record.
        real_bits: stored bits a quantized weight, for the record.
        layout: format of the weights, and what else of it is not a tensor.
        layouts: linears that have another, by name.
        activations: fields of `Activations`, or None.
    """

    def __init__(
        self,
        method: str,
        bits: float,
        real_bits: float,
        layout: Layout,
        layouts: dict[str, Layout] | None = None,
        activations: dict[str, Any] | None = None,
        quant_method: str = QUANT_METHOD,
    ) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]  # the enum lists transformers' own
        self.method = method
        self.bits = bits
        self.real_bits = real_bits
        self.layout = layout
        self.layouts = layouts or {}
        self.activations = activations


@register_quantizer(QUANT_METHOD)
class WorkbenchQuantizer(HfQuantizer):
    """Puts empty quantized linears where the file has quantized weights."""

    requires_calibration = True
    quantization_config: WorkbenchConfig

    def is_serializable(self) -> bool:
        """Whether `save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the quantized weights themselves can be trained."""
        return False

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        config = self.quantization_config
        stored = _stored(kwargs["checkpoint_files"], linear_shapes(model))
        activations = Activations(**config.activations) if config.activations else None
        for name, tensors in stored.items():
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            layer = QuantizedLinear(
                linear.in_features,
                linear.out_features,
                config.layouts.get(name, config.layout),
                tensors,
                bias=linear.bias,
                activations=activations,
            )
            model.set_submodule(name, layer)
        self._expected = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        # transformers compares shapes only where nothing is quantized
        for name, tensor in model.state_dict().items():
            if tensor.shape != self._expected[name]:
                raise _mismatch(f"{name}: shape {list(tensor.shape)}, expected {list(self._expected[name])}")
        for name, layer in quantized_linears(model).items():
            try:
                counted = layer.quantized.stored_bits
            except ModelError as error:
                raise _mismatch(f"{name}.{error}") from error
            if counted != layer.stored_bits:
                raise _mismatch(f"{name}: {layer.stored_bits} bits in the file, its layout takes {counted}")
        return model


def quantized_linears(model: nn.Module) -> dict[str, QuantizedLinear]:
    """The quantized linears of a model by dotted name, in forward order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantizedLinear)}


def mark_quantized(model: PreTrainedModel, method: str, bits: float) -> None:
    """Make `save_pretrained` write the `quantization_config` of a model that was quantized in memory."""
    linears = quantized_linears(model)
    counts = Counter(json.dumps(layer.layout) for layer in linears.values())
    layout = json.loads(counts.most_common(1)[0][0])
    activations = next(iter(linears.values())).activations
    config = WorkbenchConfig(
        method,
        bits,
        sum(layer.stored_bits for layer in linears.values()) / num_weights(linears.values()),
        layout,
        {name: layer.layout for name, layer in linears.items() if layer.layout != layout},
        asdict(activations) if activations else None,
    )
    model.hf_quantizer = WorkbenchQuantizer(config)  # type: ignore[assignment]
    model.is_quantized = True  # type: ignore[assignment]
    model.quantization_method = config.quant_method  # type: ignore[assignment]
    model.config.quantization_config = config


def num_weights(linears: Iterable[QuantizedLinear]) -> int:
    """Weights that are quantized."""
    return sum(layer.in_features * layer.out_features for layer in linears)


def _stored(files: list[str], linears: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Empty tensors on the meta device, as the files have them, of each of the linears that is quantized."""
    names = set(linears)
    found: dict[str, dict[str, Tensor]] = {}
    for path in files:
        with safe_open(Path(path), framework="pt") as file, torch.device("meta"):
            for key in file.keys():  # noqa: SIM118  # not a dict
                linear, _, part = key.rpartition(".")
                if linear in names and part not in ("weight", "bias"):
                    found.setdefault(linear, {})[part] = _empty(file.get_slice(key))
    if missing := names - set(found):
        raise _mismatch(f"no quantized weight of {', '.join(sorted(missing))}")
    return found


def _empty(tensor: Any) -> Tensor:
    """A tensor like one in a safetensors file, without reading it."""
    return torch.empty(tensor.get_shape(), dtype=_DTYPES[tensor.get_dtype()], device="meta")


_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def _mismatch(what: str) -> ModelError:
    return ModelError(f"{what}; weights and config.json are not of one model: take both from the same")
