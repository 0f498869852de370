"""Merging after the fact: go back part of the way from the trained weights to those of the start.

One algorithm a file, each a pure function of a tensor of the start and the same tensor trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workbench.errors import ModelError
from workbench.recipe.methods import MergeAlgorithm
from workbench.recipe.schema import Merge
from workbench.retention.merging import dare, linear, slerp, ties


def merge(
    base: PreTrainedModel,
    trained: PreTrainedModel,
    algorithm: MergeAlgorithm,
    weight: float,
    settings: Merge,
    seed: int,
) -> PreTrainedModel:
    """Merge two models of one architecture.

    Args:
        base: what `trained` was made from; gets the merged weights, in its own dtype.
        trained: after training.
        algorithm: how.
        weight: share of the way to `trained`, in [0, 1].
        settings: of the algorithms.
        seed: of what DARE drops.

    Returns:
        `base`.

    Raises:
        ModelError: the models do not have the same tensors.
    """
    old, new = dict(base.named_parameters()), dict(trained.named_parameters())
    differing = [name for name in old | new if _shape(old, name) != _shape(new, name)]
    if differing:
        first = differing[0]
        raise ModelError(
            f"merge: {len(differing)} tensors of the two models differ, as {first}: {_shape(old, first)} in "
            f"the base, {_shape(new, first)} in the trained model; merge a model with the one it was trained "
            "from, without new blocks or another vocabulary"
        )
    with torch.no_grad():
        for name, merged in merge_state(old, new, algorithm, weight, settings, seed).items():
            old[name].copy_(merged)
    return base


def merge_state(
    base: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    algorithm: MergeAlgorithm,
    weight: float,
    settings: Merge,
    seed: int,
) -> dict[str, Tensor]:
    """Merge tensor by tensor; see `merge`.

    Returns:
        By name, computed in float32 and rounded once to the dtype of `base`.
    """
    merged = {}
    for name, tensor in base.items():
        start, end = tensor.detach().float(), trained[name].detach().to(tensor.device, torch.float32)
        match algorithm:
            case "linear":
                result = linear.merge(start, end, weight)
            case "slerp":
                result = slerp.merge(start, end, weight)
            case "ties":
                result = ties.merge(start, [end], weight, settings.ties.keep)
            case "dare":
                generator = _generator(seed, name, tensor.device)
                result = dare.merge(start, end, weight, settings.dare.drop, generator)
        merged[name] = result.to(tensor.dtype)
    return merged


def _generator(seed: int, name: str, device: torch.device) -> torch.Generator:
    """One for each tensor, so that none depends on the order of the others."""
    key = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(key))


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "none"
