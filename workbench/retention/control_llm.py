"""Control LLM (arXiv 2501.10979): what is trained, and what keeps a copy close to its block.

The copies are trained. Of the interpolators (models/interpolators.py): f, or the b of dlerp and dlerpin, if
`learn_factor`; the linear of dlerp, dlerpin and prog always; that of proj if there is a divergence, which
alone reads it; the gate of moe if the divergence is weighted by it, because nothing else reaches it.

The divergence of K parallel blocks, added to the language loss, is

    L = 1/K sum_k mean_t alpha_k D_k[t]          over the tokens t that are not padding

with p the output of the block (A p for proj), e that of its copy, and D in float32 one of

    mse          mean over the hidden dimension of (e - p)^2
    cosine       Huber(max(0, 1 - cos(p, e))), which is (1 - cos)^2 / 2
    norm-cosine  cosine / 2 + (rms(p) - rms(e))^2 / 2

rms is the norm over the root of the hidden size, so that the magnitude counts as in mse at any width. p is
detached: the paper's code lets the divergence reach earlier copies through p, which its text does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from workbench import models
from workbench.data import Batch, attention_mask
from workbench.errors import ModelError
from workbench.models.interpolators import Interpolator
from workbench.recipe.methods import ControlLlm


def freeze(model: PreTrainedModel, settings: ControlLlm) -> None:
    """Mark what of an expanded model is trained, and let its parallel blocks keep what the divergence needs.

    Raises:
        ModelError: the model has no copies.
    """
    expansion = getattr(model.config, "expansion", None)
    if not expansion:
        raise ModelError(
            f"{type(model).__name__} has no copies to train; expand it first (method control-llm)"
        )
    blocks, parallel = models.blocks(model), models.parallel_blocks(model)
    model.requires_grad_(not settings.freeze_embeddings)
    blocks.requires_grad_(not settings.freeze_blocks)
    for index in expansion["added"]:
        blocks[index].requires_grad_(True)
    for block in parallel:
        block.expanded.requires_grad_(True)
        block.keep_branches = settings.divergence != "none"
        for name, parameter in block.interpolator.named_parameters():
            parameter.requires_grad_(_trains(name, settings))


def divergence(settings: ControlLlm) -> Callable[[nn.Module, Batch, Tensor], Tensor] | None:
    """The penalty L, or None where the settings ask for none or the structure has no parallel blocks.

    The penalty takes what the parallel blocks kept in the forward pass of the batch, and leaves none.
    """
    if settings.divergence == "none" or settings.structure == "stack":
        return None
    distance, alpha = DISTANCES[settings.divergence], settings.alpha

    def penalty(model: nn.Module, batch: Batch, logits: Tensor) -> Tensor:
        real = real_tokens(batch)
        terms = []
        for block in models.parallel_blocks(model):
            assert block.branches is not None, "freeze() lets parallel blocks keep their branches"
            p, e, w = block.branches
            block.branches = None
            weight = w.squeeze(-1) if alpha == "interpolation" else alpha
            terms.append((weight * distance(p.float(), e.float()) * real).sum() / real.sum().clamp(min=1))
        return torch.stack(terms).mean()

    return penalty


def copy_shares(model: PreTrainedModel, batches: Iterable[Batch]) -> list[float]:
    """Mean weight of the copy in the mix of each parallel block, over the real tokens of some batches.

    Args:
        model: with parallel blocks; it is put in evaluation mode.
        batches: on any device.
    """
    blocks = models.parallel_blocks(model.eval())
    sums, tokens = [0.0] * len(blocks), 0
    weights: dict[nn.Module, Tensor] = {}  # of the last forward pass, [1] or [B, L, 1]

    def keep(interpolator: nn.Module, _: object, outputs: tuple[Tensor, ...]) -> None:
        assert isinstance(interpolator, Interpolator)
        weights[interpolator] = interpolator.weight(outputs[1])

    hooks = [block.interpolator.register_forward_hook(keep) for block in blocks]
    try:
        for batch in batches:
            real = real_tokens(batch).to(model.device)
            with torch.no_grad():
                model(
                    input_ids=batch.tokens.to(model.device),
                    position_ids=batch.positions.to(model.device),
                    attention_mask=attention_mask(batch.documents).to(model.device),
                    use_cache=False,
                )
            tokens += int(real.sum())
            for number, block in enumerate(blocks):
                sums[number] += float((weights[block.interpolator].squeeze(-1) * real).sum())
    finally:
        for hook in hooks:
            hook.remove()
    return [total / max(tokens, 1) for total in sums]


def real_tokens(batch: Batch) -> Tensor:
    """[B, L] bool; False for padding, which is what belongs to a document below 0."""
    return batch.documents >= 0


def mse(p: Tensor, e: Tensor) -> Tensor:
    """Mean squared difference of p and e [B, L, d], per token [B, L]."""
    return (e - p).square().mean(dim=-1)


def cosine(p: Tensor, e: Tensor) -> Tensor:
    """Huber of how far the cosine of p and e [B, L, d] is below 1, per token [B, L]."""
    below = (1 - functional.cosine_similarity(p, e, dim=-1)).relu()
    distance: Tensor = functional.huber_loss(below, torch.zeros_like(below), reduction="none")
    return distance


def norm_cosine(p: Tensor, e: Tensor) -> Tensor:
    """Direction and magnitude of p and e [B, L, d], half each, per token [B, L]."""
    magnitude: Tensor = (p.norm(dim=-1) - e.norm(dim=-1)).square() / p.shape[-1]
    return (cosine(p, e) + magnitude) / 2


DISTANCES = {"mse": mse, "cosine": cosine, "norm-cosine": norm_cosine}


def _trains(name: str, settings: ControlLlm) -> bool:
    """Whether a parameter of an interpolator is trained."""
    if name == "factor":
        return settings.learn_factor
    match settings.interpolator:
        case "moe":
            return settings.divergence != "none" and settings.alpha == "interpolation"
        case "proj":
            return settings.divergence != "none"
        case _:
            return True
