"""Quantized models as Hugging Face folders: config.json says how to read them, transformers loads them.

Importing this module registers the quantizer, after which `AutoModelForCausalLM.from_pretrained` takes
a folder whose config.json has

    "quantization_config": {"quant_method": "workbench-affine", "bits": 4, "group_size": 32,
                            "symmetric": false, "g_idx": false, "method": "gptq"}
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from workbench.errors import ModelError
from workbench.quantization.grid import Grid, check_group_size
from workbench.quantization.linear import AffineLinear, linear_shapes

QUANT_METHOD = "workbench-affine"


@register_quantization_config(QUANT_METHOD)
class AffineConfig(QuantizationConfigMixin):
    """The `quantization_config` of config.json.

    Attributes:
        bits: width of a code.
        group_size: columns in a group, or "channel".
        symmetric: whether no zero points are stored.
        g_idx: whether linears with more than one group store the group of each column.
        method: the method that chose the codes, for the record.
    """

    def __init__(
        self,
        bits: int,
        group_size: int | Literal["channel"],
        symmetric: bool,
        g_idx: bool,
        method: str,
        quant_method: str = QUANT_METHOD,
    ) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]  # the enum lists transformers' own
        self.bits = bits
        self.group_size = group_size
        self.symmetric = symmetric
        self.g_idx = g_idx
        self.method = method


@register_quantizer(QUANT_METHOD)
class AffineQuantizer(HfQuantizer):
    """Puts empty quantized linears where the file has quantized weights."""

    requires_calibration = True
    quantization_config: AffineConfig

    def is_serializable(self) -> bool:
        """Whether `save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the quantized weights themselves can be trained."""
        return False

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        config = self.quantization_config
        shapes = linear_shapes(model)
        check_group_size(shapes, config.group_size)
        for name in shapes:
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            model.set_submodule(name, _empty(linear, config))
        self._expected = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        # transformers compares shapes only where nothing is quantized
        for name, tensor in model.state_dict().items():
            if tensor.shape != self._expected[name]:
                raise ModelError(
                    f"{name}: shape {list(tensor.shape)}, config.json says {list(self._expected[name])}; "
                    "weights and config.json are not of one model: take both from the same"
                )
        return model


def mark_quantized(model: PreTrainedModel, method: str, grid: Grid, *, g_idx: bool) -> None:
    """Make `save_pretrained` write the `quantization_config` of a model that was quantized in memory."""
    config = AffineConfig(grid.bits, grid.group_size, grid.symmetric, g_idx, method)
    model.hf_quantizer = AffineQuantizer(config)  # type: ignore[assignment]
    model.is_quantized = True  # type: ignore[assignment]
    model.quantization_method = config.quant_method  # type: ignore[assignment]
    model.config.quantization_config = config


def _empty(linear: nn.Linear, config: AffineConfig) -> AffineLinear:
    group_size = linear.in_features if config.group_size == "channel" else config.group_size
    return AffineLinear(
        linear.in_features,
        linear.out_features,
        config.bits,
        group_size,
        symmetric=config.symmetric,
        g_idx=config.g_idx and group_size < linear.in_features,
        bias=linear.bias,
    )
