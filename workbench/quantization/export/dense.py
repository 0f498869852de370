"""Dense export: the values of the quantized weights as plain linears, which every tool loads.

The file takes the space of the unquantized model; what a reader computes is what the quantized model
computes. It is the reference for readers of packed layouts, and the only layout for widths that no
ecosystem format has.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from workbench import models
from workbench.quantization.linear import QuantizedLinear


def densify(model: PreTrainedModel) -> None:
    """Replace the quantized linears of a model by plain ones, in place, and drop its quantization_config."""
    for block in models.blocks(model):
        for name, layer in list(block.named_modules()):
            if isinstance(layer, QuantizedLinear):
                block.set_submodule(name, _plain(layer, model.dtype))
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)


def _plain(layer: QuantizedLinear, dtype: torch.dtype) -> nn.Linear:
    weight = layer.dequantize().to(dtype)  # [out, in]
    with torch.device("meta"):
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(weight)
    if layer.bias is not None:
        linear.bias = layer.bias
    return linear
