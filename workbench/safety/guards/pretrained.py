"""Guards from a model folder: safetensors alone, and no code of theirs is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from workbench import models
from workbench.errors import ModelError
from workbench.models.folder import check_finite, check_readable, weight_files


def load_causal(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A guard that writes its verdict (Llama Guard, WildGuard), and its tokenizer.

    Raises:
        ModelError: as in `models.load`.
    """
    model, tokenizer = models.load(folder, dtype), models.load_tokenizer(folder)
    models.check_tokenizer(model.config, tokenizer)
    return model, tokenizer


def load_classifier(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A guard that is a sequence classifier (DuoGuard), and its tokenizer, ready to pad.

    Raises:
        ModelError: as in `models.load`; above all, weights that have no head to classify with, which
            transformers would fill at random.
    """
    config = models.load_config(folder)
    for file in weight_files(folder):
        check_readable(file)
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # so that they are reported here, by name, with the others
        output_loading_info=True,
    )
    model: PreTrainedModel = loaded[0]
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found := sorted(map(str, loaded[1][problem])):
            raise ModelError(
                f"{folder}: {len(found)} {problem.replace('_keys', '')} weights ({', '.join(found[:5])}); "
                "not the weights of a sequence classifier: take a guard that was trained as one"
            )
    check_finite(folder, model.state_dict())
    tokenizer = models.load_tokenizer(folder)
    models.check_tokenizer(model.config, tokenizer)
    if model.config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    return model.eval(), tokenizer
