"""Models on disk and in memory: always a Hugging Face folder, always safetensors.

`new` makes a LLaMA-3 from a recipe, `load` and `save` move any causal language model, and `blocks`,
`linears` and `subsets` walk a decoder the way that layer-by-layer methods need it.
"""

from workbench.models.folder import load, load_config, load_tokenizer, save
from workbench.models.llama import configuration, new
from workbench.models.published import published
from workbench.models.tokenizer import check_tokenizer, train_tokenizer
from workbench.models.walk import blocks, count_parameters, linears, subsets

__all__ = [
    "blocks",
    "check_tokenizer",
    "configuration",
    "count_parameters",
    "linears",
    "load",
    "load_config",
    "load_tokenizer",
    "new",
    "published",
    "save",
    "subsets",
    "train_tokenizer",
]
