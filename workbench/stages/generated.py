"""Text that a model writes from nothing, so that a model can be trained without data.

As in LLM-QAT (Liu et al., arXiv 2305.17888), each text begins with the BOS token, or with a token drawn
at random where the model has none, and goes on by sampling from the model until it ends or is long
enough. What differs: all tokens are sampled at one temperature, where the paper takes the first few
greedily. Every batch is a file of its own, so a writing that was stopped goes on at its batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from workbench import storage
from workbench.errors import DataError
from workbench.progress import progress
from workbench.recipe.preparation import Generated
from workbench.recipe.schema import Recipe
from workbench.stages import writers
from workbench.stages.identity import generated_identity
from workbench.stages.writers import Write
from workbench.storage import Store

TEXTS, RAW = "texts.jsonl", "written"
BATCH = 64  # texts


def documents(store: Store, settings: Generated, recipe: Recipe) -> Iterator[str]:
    """The texts that a writer made.

    Raises:
        RecipeError: the writer is not in the recipe.
        DataError: the writer has no room or writes blank texts, or a server does not answer.
    """

    def build(out: Path) -> None:
        compose(writers.of(store, settings, recipe), settings, recipe.seed, out)

    fingerprint = storage.digest(generated_identity(settings, recipe))
    folder = store.make(fingerprint, build, resumable=True)
    with (folder / TEXTS).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def compose(write: Write, settings: Generated, seed: int, out: Path) -> None:
    """Write until there are enough texts that are not blank.

    Args:
        write: gives what follows each of some prompts, all of which are empty.
        settings: how many texts.
        seed: of the writing; every batch has its own.
        out: gets `texts.jsonl` and, batch by batch, `written/`.

    Raises:
        DataError: the longest text does not fit the writer, or most texts are blank.
    """
    (out / RAW).mkdir(parents=True, exist_ok=True)
    with (
        (out / TEXTS).open("w", encoding="utf-8") as file,
        progress("generated texts", settings.documents, "texts") as advance,
    ):
        missing, blank = settings.documents, 0
        for number in count():
            prompts = [""] * min(BATCH, missing)
            path = out / RAW / f"{number:08d}.json"
            written = writers.kept(write, prompts, seed * 1_000_003 + number * BATCH, path)
            if any(each.text is None for each in written):
                raise DataError(
                    f"generated: max_new_tokens {settings.max_new_tokens} leaves no room in the writer's "
                    "context for a first token; lower it"
                )
            texts = [each.text for each in written if each.text and not each.text.isspace()]
            file.writelines(storage.json_line({"text": text}) for text in texts)
            missing, blank = missing - len(texts), blank + len(prompts) - len(texts)
            advance(len(texts), blank=str(blank))
            if not missing:
                return
            if blank > settings.documents + BATCH:
                raise DataError(
                    f"generated: {blank} texts of the writer are blank, and {missing} of "
                    f"{settings.documents} are still missing; the raw writing is in {out / RAW}. "
                    "Give another writer or temperature"
                )
