"""Load: bring a finished model into the run, checked, without copying it."""

from __future__ import annotations

from pathlib import Path

import torch

from workbench import data, models
from workbench.errors import ModelError
from workbench.recipe.inputs import Model
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult

FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*")


def build(job: Job, out: Path) -> None:
    """Link the model's folder to `out/model` after loading it once, so that a bad one fails here."""
    with measured() as cost:
        folder = locate(job.model)
        model = models.load(folder, getattr(torch, job.model.dtype))
        models.check_tokenizer(model.config, models.load_tokenizer(folder))
        link = out / "model"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)
    StageResult(cost.seconds, cost.peak_memory_bytes).write(out)


def locate(model: Model) -> Path:
    """The local folder of a model; fetches a pinned hub revision, safetensors only.

    Raises:
        DataError: no such folder.
        ModelError: the hub cannot be reached, or does not have it; or the model is a new one.
    """
    if model.path:
        return data.resolve(model.path)
    if model.hub is None:
        raise ModelError("model.new: there is no folder of it yet; name path, or hub and revision")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model.hub, revision=model.revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"model.hub: {model.hub} at {str(model.revision)[:8]} could not be fetched: {reason}. Check the "
            "network, accept the model's licence on its page, and log in with `hf auth login`"
        ) from error
