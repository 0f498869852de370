"""The token files that a training reads: ordered by perplexity where the recipe asks for it.

The scores of a source under a model are kept in the store, apart from the order made of them: the way
back, from hard to easy, costs no second look at the text.
"""

from __future__ import annotations

from pathlib import Path

import torch

from workbench import data, models, storage
from workbench.data import TokenFile
from workbench.evaluation import ordering
from workbench.stages import prepare
from workbench.stages.identity import VERSIONS
from workbench.stages.job import Job


def training_tokens(job: Job, name: str, tokenizer_folder: Path) -> TokenFile:
    """The token file of one source of a training, its documents in the order in which they are read.

    Raises:
        DataError: the source has no documents, or none that can be ordered.
    """
    file = prepare.training_file(job, name, tokenizer_folder)
    reading = job.training_stage.reading.get(name)
    if reading is None or reading.order == "shuffled":
        return file
    order = reading.order
    scores = _scores(job, name, file)
    key = {"kind": "ordered", "version": VERSIONS["ordered"], "scores": scores.parent.name, "order": order}

    def build(out: Path) -> None:
        permutation = ordering.permutation(ordering.read(scores), order)
        data.reorder(file, permutation, out, f"{name}, {order}")

    return TokenFile(job.store.make(storage.digest(key), build))


def _scores(job: Job, name: str, file: TokenFile) -> Path:
    """The file of the perplexities of a source's documents under the model that the job goes on from."""
    parent, length = job.parent, job.training_stage.sequence_length
    assert parent
    key = {
        "kind": "perplexity of documents",
        "version": VERSIONS["ordered"],
        "model": parent.fingerprint,
        "dtype": job.origin.dtype,
        "tokens": file.folder.name,
        "length": length,
    }

    def build(out: Path) -> None:
        model = models.load(parent.model_folder, getattr(torch, job.origin.dtype))
        torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
        ordering.score(model, file, length, out, f"perplexity of {name}, document by document")

    return job.store.make(storage.digest(key), build, resumable=True) / ordering.SCORES
