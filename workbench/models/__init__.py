"""Models on disk and in memory: always a Hugging Face folder, always safetensors.

`new` makes a LLaMA-3 from a recipe, `load` and `save` move any causal language model, and `blocks`,
`linears` and `subsets` walk a decoder the way that layer-by-layer methods need it. `expand` and `stack`
add trainable copies to the blocks of a LLaMA, and `merge_back` folds them in again; importing this package
registers the expanded architecture, and that of MoGU, with transformers' auto classes.
"""

from workbench.models.control_llm import (
    ControlLlamaConfig,
    ControlLlamaForCausalLM,
    ParallelBlock,
    expand,
    parallel_blocks,
    step_0_deviation,
)
from workbench.models.expansion import check_expandable, positions, stack
from workbench.models.folder import load, load_config, load_tokenizer, save
from workbench.models.llama import configuration, new
from workbench.models.merge_back import merge_back
from workbench.models.mogu import MoguModel, add_responders, fold, merge_responders, responding
from workbench.models.published import published
from workbench.models.streaming import stream
from workbench.models.tokenizer import END_OF_TURN, check_tokenizer, train_tokenizer
from workbench.models.walk import blocks, count_parameters, linears, outline, subsets

__all__ = [
    "END_OF_TURN",
    "ControlLlamaConfig",
    "ControlLlamaForCausalLM",
    "MoguModel",
    "ParallelBlock",
    "add_responders",
    "blocks",
    "check_expandable",
    "check_tokenizer",
    "configuration",
    "count_parameters",
    "expand",
    "fold",
    "linears",
    "load",
    "load_config",
    "load_tokenizer",
    "merge_back",
    "merge_responders",
    "new",
    "outline",
    "parallel_blocks",
    "positions",
    "published",
    "responding",
    "save",
    "stack",
    "step_0_deviation",
    "stream",
    "subsets",
    "train_tokenizer",
]
