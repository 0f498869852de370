"""Guards from a folder or a pinned revision of the hub: safetensors alone, and no code of theirs is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from workbench import data, models
from workbench.errors import ModelError
from workbench.models.folder import check_finite, check_readable, weight_files
from workbench.recipe.inputs import Model

_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*")


def locate(origin: Model) -> Path:
    """The local folder of a guard; fetches a pinned hub revision.

    Raises:
        ModelError: the hub cannot be reached, or does not have it; or the guard would be a new model.
        DataError: no such folder.
    """
    if origin.path:
        return data.resolve(origin.path)
    if origin.hub is None:
        raise ModelError("a guard with random weights judges nothing; name a path, or hub and revision")
    try:
        return Path(snapshot_download(origin.hub, revision=origin.revision, allow_patterns=list(_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"guard {origin.hub} at {str(origin.revision)[:8]} could not be fetched: "
            f"{str(error).splitlines()[0]}. Check the network, accept the model's licence on its page, and "
            "log in with `hf auth login`"
        ) from error


def load_causal(origin: Model) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A guard that writes its verdict (Llama Guard, WildGuard), and its tokenizer.

    Raises:
        ModelError: as in `locate` and `models.load`.
    """
    folder = locate(origin)
    model, tokenizer = models.load(folder, getattr(torch, origin.dtype)), models.load_tokenizer(folder)
    models.check_tokenizer(model.config, tokenizer)
    return model, tokenizer


def load_classifier(
    origin: Model, tokenizer_origin: Model | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A guard that is a sequence classifier (DuoGuard), and its tokenizer, ready to pad.

    Args:
        origin: the classifier.
        tokenizer_origin: the model that it was made from, where the classifier comes without a tokenizer.

    Raises:
        ModelError: as in `locate` and `models.load`; above all, weights that have no head to classify with,
            which transformers would fill at random.
    """
    folder = locate(origin)
    config = models.load_config(folder)
    for file in weight_files(folder):
        check_readable(file)
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        dtype=getattr(torch, origin.dtype),
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
    tokenizer = models.load_tokenizer(locate(tokenizer_origin) if tokenizer_origin else folder)
    models.check_tokenizer(model.config, tokenizer)
    if model.config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    return model.eval(), tokenizer
