"""LoRA: low-rank updates beside frozen linears (Hu et al., arXiv 2106.09685, section 4.1).

A linear W becomes W + s B A with A [r, in] random, B [out, r] zero, and s = alpha / r; rank-stabilised
(Kalajdzievski, arXiv 2312.03732), s = alpha / sqrt(r). The layers are those of peft; in the end B A is
added to W and nothing is left of them. A new vocabulary needs more than low rank: its embeddings can be
trained whole beside the adapters, as in ChocoLlama (arXiv 2412.07633, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from workbench import models
from workbench.recipe.methods import Lora


def wrap(model: PreTrainedModel, settings: Lora, seed: int) -> Callable[[PreTrainedModel], PreTrainedModel]:
    """Put adapters beside all linears of the blocks, in place, and let only them be trained.

    With `train_embeddings` the embeddings and the output head are trained too, whole.

    Args:
        model: computes the same as before, until it is trained.
        settings: rank, scale and dropout.
        seed: of the random A.

    Returns:
        Folds the adapters of the trained model into its linears and gives the stock model.
    """
    from peft import LoraConfig, get_peft_model  # seconds of imports, for those who train with it

    linears = {module for block in models.blocks(model) for module in models.linears(block).values()}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        use_rslora=settings.rank_stabilized,
        lora_dropout=settings.dropout,
        target_modules=[name for name, module in model.named_modules() if module in linears],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    if settings.train_embeddings:
        model.get_input_embeddings().weight.requires_grad_(True)
        model.get_output_embeddings().weight.requires_grad_(True)

    def merge(trained: PreTrainedModel) -> PreTrainedModel:
        assert trained is model
        adapted.merge_and_unload()  # in place
        return trained

    return merge
