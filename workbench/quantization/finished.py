"""Blocks that a stopped quantization had finished: one file each, so that the next try goes on behind them.

A file holds the block's tensors and, in its header, layouts and reports of its linears. What each linear
came to is also appended to `layers.jsonl` as it happens, one line of JSON each.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from workbench.errors import RunError
from workbench.quantization.activations import Activations
from workbench.quantization.linear import QuantizedLinear


@dataclass(frozen=True)
class LayerReport:
    """What quantization did to one linear.

    Attributes:
        name: dotted name in the model.
        shape: [out, in].
        bits: stored bits a weight, everything included.
        weight_error: ||W - W^|| / ||W||.
        output_error: ||(W - W^) X|| / ||W X|| over the calibration inputs; None without calibration.
        diagnostics: what was measured on the way; dead_columns and clipped_share, extra_damping or rounded
            where the Hessian was singular, and what the method reports.
    """

    name: str
    shape: tuple[int, int]
    bits: float
    weight_error: float
    output_error: float | None
    diagnostics: dict[str, float]


class Finished:
    """The finished blocks in a folder; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "layers.jsonl").unlink(missing_ok=True)

    def save(self, index: int, block: nn.Module, layers: list[LayerReport]) -> None:
        """Keep a finished block.

        Raises:
            RunError: it could not be written; nothing of it is left behind.
        """
        if self.folder is None:
            return
        tensors = {name: tensor.cpu().contiguous() for name, tensor in block.state_dict().items()}
        layouts = {
            name: module.layout
            for name, module in block.named_modules()
            if isinstance(module, QuantizedLinear)
        }
        facts = {"layouts": layouts, "layers": [asdict(layer) for layer in layers]}
        path = self._path(self.folder, index)
        partial = path.with_suffix(".partial")
        try:
            save_file(tensors, partial, {name: json.dumps(fact) for name, fact in facts.items()})
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise RunError(
                f"{path}: the finished block could not be written ({error}); make room or make the folder "
                "writable, then start the same command again; it goes on behind the last whole block"
            ) from error

    def load(self, index: int, block: nn.Module, activations: Activations | None) -> list[LayerReport] | None:
        """Turn a block into the finished one, in place; None where it is not there."""
        if self.folder is None or not self._path(self.folder, index).is_file():
            return None
        with safe_open(self._path(self.folder, index), framework="pt") as file:
            facts = {name: json.loads(fact) for name, fact in file.metadata().items()}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        for name, layout in facts["layouts"].items():
            linear = block.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            prefix = f"{name}."
            own = {
                key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
            }
            own.pop("bias", None)
            layer = QuantizedLinear(
                linear.in_features,
                linear.out_features,
                layout,
                own,
                bias=linear.bias,
                activations=activations,
            )
            block.set_submodule(name, layer.to(linear.weight.device))
        block.load_state_dict(state)
        return [LayerReport(**layer | {"shape": tuple(layer["shape"])}) for layer in facts["layers"]]

    def tell(self, layer: LayerReport) -> None:
        """Append what a linear came to."""
        if self.folder is not None:
            with (self.folder / "layers.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(layer)) + "\n")

    @staticmethod
    def _path(folder: Path, index: int) -> Path:
        return folder / f"block-{index:04d}.safetensors"


def discard_blocks(folder: Path) -> None:
    """Remove the finished blocks, because the whole model is kept; `layers.jsonl` stays."""
    for path in folder.glob("block-*"):
        path.unlink()
