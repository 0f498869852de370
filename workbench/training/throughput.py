"""How fast training goes: model FLOP utilisation."""

from __future__ import annotations

import time

import torch
from torch import nn
from transformers import PreTrainedModel

from workbench.recipe.schema import Engine
from workbench.recipe.training import TrainingStage

# Dense bfloat16 FLOP/s without sparsity, from the makers' data sheets.
_DATA_SHEET = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
_MATMUL = 512  # rows and columns of the matrices that measure a device without a data sheet


class Pace:
    """Stop-watch of the training steps: `with pace:` around each, what lies between them does not count.

    The first step of a process is left out, because it also warms up and compiles.
    """

    def __init__(
        self, model: PreTrainedModel, stage: TrainingStage, engine: Engine, device: torch.device, world: int
    ) -> None:
        self._tokens_per_step = stage.batch_size * stage.sequence_length
        self._flops_per_token = flops_per_token(model, stage.sequence_length)
        dtype = torch.float32 if engine.precision == "float32" else torch.bfloat16
        peak, self._peak_source = peak_flops(device, dtype)
        self._peak = peak * world
        self._steps = -1
        self._seconds = self._last = self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._last = time.perf_counter() - self._began
        self._steps += 1
        if self._steps > 0:
            self._seconds += self._last

    @property
    def tokens_per_second(self) -> float:
        """Of all steps but the first; of the first where there is no other, 0 where there is none."""
        if self._steps > 0:
            return self._steps * self._tokens_per_step / self._seconds
        return self._tokens_per_step / self._last if self._last else 0.0

    def figures(self) -> dict[str, float | str]:
        """Speed of the last step, for the log."""
        speed = self._tokens_per_step / self._last
        return {
            "tokens_per_second": speed,
            "mfu": speed * self._flops_per_token / self._peak,
            "mfu_of": self._peak_source,
        }


def flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """Floating-point operations of forward and backward for one token.

    6 N + 12 * layers * heads * head_dim * L, where N counts the weights of all matrix products, that of
    the output embedding included, the look-up of the input embedding left out. Activations that are
    computed again do not count; attention counts in full although half of it is masked, as is usual.

    Source: PaLM, arXiv 2204.02311, appendix B.
    """
    config = model.config
    weights = sum(_weights(module) for module in model.modules())
    width = config.num_attention_heads * getattr(
        config, "head_dim", config.hidden_size // config.num_attention_heads
    )
    flops: float = 6.0 * weights + 12.0 * config.num_hidden_layers * width * sequence_length
    return flops


def _weights(module: nn.Module) -> int:
    """Weights of a matrix product, quantized or not; 0 for all else, also for a wrapper around one."""
    if any(True for _ in module.children()):
        return 0
    return int(getattr(module, "in_features", 0)) * int(getattr(module, "out_features", 0))


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Floating-point operations a second that one device can do at best, and where the figure comes from.

    The data sheet for the GPUs known here and bfloat16; otherwise measured, as the best of a few
    matrix products, which is what utilisation can reach at all.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, peak in _DATA_SHEET.items():
            if known in name:
                return peak, f"data sheet of {known}"
    return _measured(device, dtype), f"measured {_MATMUL}-wide {dtype} matrix product"


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    matrix = torch.ones(_MATMUL, _MATMUL, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * _MATMUL**3 / best
