"""Attention that need not run again while the linears behind it are quantized.

A block whose linears are quantized in order runs over the calibration set once for each group of them, and
once more for its outputs. As soon as all linears of its attention but the last are quantized, what the last
one reads stays the same: it is kept from the pass that wants its statistics, and later passes go on from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench import models

Batch = tuple[Tensor, dict[str, Any]]  # hidden states, and the other arguments of a block


class Attended:
    """What the last linear of the attention of one block reads, as large as the hidden states."""

    def __init__(self) -> None:
        self._module, self._last = "", ""
        self._inputs: list[Tensor] = []  # one a batch

    @contextmanager
    def keeping(self, block: nn.Module, batch: Batch) -> Iterator[None]:
        """Keep it from a pass for the first linear that is not quantized yet, if attention ends in that one.

        Args:
            block: its linears are quantized in forward order.
            batch: any one, to try that with.
        """
        first, *others = models.linears(block)
        module, _, last = first.rpartition(".")
        alone = others and not any(other.startswith(f"{module}.") for other in others)
        if (
            not alone
            or module not in dict(block.named_children())
            or not _ends_in(block, module, last, batch)
        ):
            yield
            return
        self._module, self._last = module, last
        handle = block.get_submodule(first).register_forward_pre_hook(
            lambda _, args: self._inputs.append(args[0])
        )
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def standing_in(self, block: nn.Module) -> Iterator[None]:
        """Let attention be its last linear on what was kept, for one pass over all batches."""
        if not self._inputs:
            yield
            return
        attention = block.get_submodule(self._module)
        block.set_submodule(self._module, _Ending(attention.get_submodule(self._last), self._inputs))
        try:
            yield
        finally:
            block.set_submodule(self._module, attention)


class _Ending(nn.Module):
    """Stands in for attention: its last linear, at each call on the next of the kept inputs."""

    def __init__(self, linear: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()
        self.linear, self.inputs = linear, iter(inputs)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return self.linear(next(self.inputs)), None


def _ends_in(block: nn.Module, module: str, last: str, batch: Batch) -> bool:
    """Whether the module, called once, puts out what this linear of it does, and no attention weights."""
    linear, seen = block.get_submodule(f"{module}.{last}"), []
    handles = [
        linear.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
        block.get_submodule(module).register_forward_hook(lambda _, args, output: seen.append(output)),
    ]
    try:
        block(batch[0], **batch[1])
    finally:
        for handle in handles:
            handle.remove()
    match seen:
        case [Tensor() as x, (Tensor() as y, None)]:
            return torch.equal(y, linear(x))
    return False
