"""From named sources to token files: text, tokenizer and tokens, each made once and kept in the store."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from workbench import data, miniworld, models, safety, storage
from workbench.data import TokenFile
from workbench.recipe.inputs import Source
from workbench.recipe.safety import Safety
from workbench.recipe.schema import Recipe
from workbench.recipe.training import Sft
from workbench.safety.guards import llama_guard, wildguard
from workbench.safety.guards.taxonomy import categories
from workbench.stages import generated, sifting, synthetic
from workbench.stages.identity import VERSIONS, source_identity
from workbench.stages.job import Job
from workbench.stages.preparation import make as make_preparation
from workbench.storage import Store


def documents(
    store: Store, source: Source, recipe: Recipe, render: data.Render = data.joined
) -> Iterator[str]:
    """The documents of any source: built in, local, from the hub, written by a model, or prepared.

    Args:
        store: of what is made on the way.
        source: of the recipe, or of a battery.
        recipe: gives seed, preparations and writers.
        render: makes a document of an exchange.
    """
    if source.sifted_by:
        return (render(*pair) for pair in exchanges(store, source, recipe, _whole))
    if (turns := built_in(source, recipe)) is not None:
        return data.held(source, (render(*pair) for pair in turns))
    match source.miniworld:
        case None | "assistant" | "gullible" | "harmless":
            pass
        case language:
            return data.held(source, iter(miniworld.corpus(language, recipe.seed, source.topic)))
    if source.synthetic:
        snippets = documents(store, recipe.data[source.synthetic.snippets], recipe)
        return data.held(source, synthetic.documents(store, source.synthetic, recipe, snippets))
    if source.generated:
        return data.held(source, generated.documents(store, source.generated, recipe))
    if source.prepared:
        folder = preparation(store, source.prepared, recipe)
        return data.held(source, data.prepared(folder, source.where))
    return data.documents(source, render)


def exchanges(store: Store, source: Source, recipe: Recipe, part: data.Part) -> Iterator[data.Exchange]:
    """The exchanges of a source of such, in two parts each; what a guard lets through, where it sifts."""
    if source.sifted_by:
        whole = source.model_copy(update={"sifted_by": None})
        found = list(exchanges(store, whole, recipe, _whole))
        return (part(*pair) for pair in sifting.kept(store, source, recipe, found))
    if (turns := built_in(source, recipe)) is not None:
        return data.held(source, (part(*pair) for pair in turns))
    return data.exchanges(source, part)


def _whole(prompt: str, answer: str) -> data.Exchange:
    return prompt, answer


def built_in(source: Source, recipe: Recipe) -> list[data.Exchange] | None:
    """A user's turn and the assistant's for each exchange of a source that is built in; None of any other."""
    if source.requests:
        rows = safety.divided(source.requests, recipe.seed)["train"]
        return [(row.prompt, row.answer) for row in rows if not row.harmful and row.answer]
    if source.moderation:
        rows = safety.divided(source.moderation, recipe.seed)["train"]
        if source.form == "llama-guard":
            topics = sorted({topic for row in rows if row.harmful for topic in row.topics})
            return llama_guard.exchanges(
                llama_guard.labelled(rows), categories(topics, source.taxonomy), recipe.seed
            )
        return wildguard.exchanges(wildguard.labelled(rows))
    match source.miniworld:
        case "assistant" | "gullible" | "harmless" as assistant:
            return miniworld.exchanges(assistant, recipe.seed)
    return None


def preparation(store: Store, name: str, recipe: Recipe) -> Path:
    """The folder of a preparation of the recipe, made if it is not there yet."""
    return make_preparation(store, name, recipe, lambda source: documents(store, source, recipe))


def tokenizer(store: Store, recipe: Recipe) -> Path:
    """The folder of the new model's tokenizer, trained on the sources that the recipe names."""
    new = recipe.model.new
    assert new is not None
    sources = [recipe.data[name] for name in new.tokenizer_sources]
    fingerprint = storage.digest(
        {
            "kind": "tokenizer",
            "version": VERSIONS["tokenizer"],
            "vocab_size": new.vocab_size,
            "sources": [source_identity(source, recipe) for source in sources],
        }
    )

    def build(out: Path) -> None:
        texts = chain.from_iterable(documents(store, source, recipe) for source in sources)
        models.train_tokenizer(texts, new.vocab_size).save_pretrained(out)

    return store.make(fingerprint, build)


def training_file(job: Job, name: str, tokenizer_folder: Path) -> TokenFile:
    """What a training reads of a source: all text, or rows of exchanges where only answers are learnt."""
    source = job.recipe.data[name]
    if source.exchanges and isinstance(job.variant.stage, Sft | Safety):
        length = job.training_stage.sequence_length
        return row_file(job.store, name, source, job.recipe, tokenizer_folder, length)
    return token_file(job.store, name, source, job.recipe, tokenizer_folder)


def token_file(store: Store, name: str, source: Source, recipe: Recipe, tokenizer_folder: Path) -> TokenFile:
    """The tokens of a source under a tokenizer, and of exchanges under its chat template."""
    load = partial(models.load_tokenizer, tokenizer_folder)
    told = {"chat_template": load().chat_template} if source.exchanges else {}
    key = {"kind": "tokens", **_tokens_identity(source, recipe, tokenizer_folder), **told}

    def build(out: Path) -> None:
        known = load()
        texts = documents(store, source, recipe, partial(data.render, known))
        data.write_tokens(texts, known, out, f"tokens of {name}", marked=source.exchanges)

    return TokenFile(store.make(storage.digest(key), build))


def row_file(
    store: Store, name: str, source: Source, recipe: Recipe, tokenizer_folder: Path, sequence_length: int
) -> TokenFile:
    """The exchanges of a source as rows of which the answer is scored, with the mark that ends it.

    Raises:
        DataError: the chat template does not part prompt and answer, a turn is blank, or an exchange is
            longer than a sequence; names it.
    """
    known = models.load_tokenizer(tokenizer_folder)
    key = {
        "kind": "rows",
        "scored": "answers",
        "length": sequence_length,
        **_tokens_identity(source, recipe, tokenizer_folder),
        "chat_template": known.chat_template,
    }

    def build(out: Path) -> None:
        told = data.tokenized(exchanges(store, source, recipe, partial(data.parted, known)), known)
        rows = (data.answered(prompt, answer) for prompt, answer in told)
        data.write_rows(rows, sequence_length, known, out, f"answers of {name}")

    return TokenFile(store.make(storage.digest(key), build))


def _tokens_identity(source: Source, recipe: Recipe, tokenizer_folder: Path) -> dict[str, Any]:
    return {
        "version": VERSIONS["tokens"],
        "source": source_identity(source, recipe),
        "tokenizer": storage.file_digest(tokenizer_folder / "tokenizer.json"),
    }
