"""A training reads its sources in the order of their perplexity under the model that it goes on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workbench import recipe, storage
from workbench.data import TokenFile
from workbench.evaluation import ordering as scoring
from workbench.run import walk
from workbench.stages import ordering
from workbench.stages.job import Job
from workbench.storage import Store

RECIPE = """\
name: ordered
description: from easy to hard, and text written by the base
seed: 3
model: {{path: {model}}}
data:
  old: {{miniworld: base, documents: [0, 200]}}
  new: {{miniworld: new, documents: [0, 200]}}
  written:
    synthetic:
      {{snippets: old, writer: {{variant: base}}, documents: 40, prompt: "{{snippet}}\\n",
       answer: " ", stop: "~~~", discard: none, shortest: 1, overlap: 0.0, max_new_tokens: 16}}
stages:
  - {{kind: cpt, methods: [full], mixture: {{new: 0.75, written: 0.25}}, tokens: 2048, batch_size: 8,
     sequence_length: 64, learning_rate: 1e-3, reading: {{new: {{order: {order}}}}}}}
"""


@pytest.fixture
def job(tiny_model_folder: Path, tmp_path: Path):
    """The job of the recipe's only training, under an order."""

    def make(order: str) -> Job:
        path = tmp_path / f"{order}.yaml"
        path.write_text(RECIPE.format(model=tiny_model_folder, order=order))
        base, trained = walk.make_jobs(recipe.load(path).recipe, Store(tmp_path / "store"))
        base.store.make(base.fingerprint, lambda out: walk.BUILDERS["load"](base, out))
        return trained

    return make


def documents(file: TokenFile) -> list[bytes]:
    return [file.tokens[a:b].tobytes() for a, b in zip(file.starts, file.starts[1:], strict=False)]


def test_documents_are_read_from_easy_to_hard_and_back(job, tiny_model_folder: Path, tmp_path: Path) -> None:
    plain, easy, hard = (
        ordering.training_tokens(job(order), "new", tiny_model_folder)
        for order in ("shuffled", "easy-to-hard", "hard-to-easy")
    )
    assert documents(easy) == documents(hard)[::-1]
    assert sorted(documents(easy)) == sorted(documents(plain)) and documents(easy) != documents(plain)
    (scored,) = (tmp_path / "store").glob("*/scores.bin")  # looked at once for both
    scores = dict(zip(documents(plain), scoring.read(scored), strict=True))
    assert np.all(np.diff([scores[document] for document in documents(easy)]) >= 0)


def test_another_order_is_another_training(job) -> None:
    assert len({job(order).fingerprint for order in ("shuffled", "easy-to-hard", "hard-to-easy")}) == 3


def test_a_training_reads_ordered_and_written_text(job) -> None:
    trained = job("easy-to-hard")
    trained.store.make(trained.fingerprint, lambda out: walk.BUILDERS["cpt"](trained, out))
    assert storage.read_json(trained.folder / "result.json")["details"]["steps"] == 4
    assert (trained.folder / "model" / "config.json").is_file()
