"""Vocabulary: a tokenizer for a new language, and embeddings for its tokens out of the old ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from workbench import models, storage
from workbench.data import alignment
from workbench.models import embeddings, vocabulary
from workbench.models.vocabulary import Renewal
from workbench.recipe.methods import EmbeddingMethod
from workbench.recipe.schema import Vocabulary
from workbench.stages import prepare
from workbench.stages.identity import VERSIONS, source_identity
from workbench.stages.job import Job
from workbench.stages.measure import measured
from workbench.stages.result import StageResult

SAMPLE = 2000  # documents on which the cost of text in tokens is measured
OUTPUT_SEED = 1_000_003  # added to the recipe's seed, so that the matrices are not drawn alike


def build(job: Job, out: Path) -> None:
    """Give the parent's model the new tokenizer, and embeddings by the variant's method."""
    stage, parent, seed = job.variant.stage, job.parent, job.recipe.seed
    assert isinstance(stage, Vocabulary) and parent
    with measured() as cost:
        old = models.load_tokenizer(parent.model_folder)
        renewal = _renewal(job, stage, old)
        model = models.load(parent.model_folder, getattr(torch, job.origin.dtype))
        method: EmbeddingMethod = job.variant.method  # type: ignore[assignment]
        aligned = _aligned(job, stage, old, renewal) if "translation" in (method, stage.output) else None
        before, head = embeddings.matrices(model)
        inputs, outputs = _rows(before, method, renewal, aligned, seed), None
        if stage.output or not embeddings.tied(model):
            outputs = _rows(head, stage.output or method, renewal, aligned, seed + OUTPUT_SEED)
        embeddings.fit(model, inputs, outputs, renewal.anchored)
        if stage.replace:
            _mark(model, renewal.tokenizer)
    notes = {"method": method, "output": stage.output or method, "tokens": len(renewal.tokenizer)}
    models.save(model, renewal.tokenizer, out / "model", {**notes, "made from": parent.variant.name})
    details = {
        "tokens": len(renewal.tokenizer),
        "new_tokens": len(renewal.tokenizer) - len(renewal.anchored),
        "tokens_per_byte": _costs(job, stage, old, renewal.tokenizer),
    }
    if aligned is not None:
        made = [number for number in range(len(renewal.tokenizer)) if number not in renewal.anchored]
        details["aligned_tokens"] = sum(bool(aligned[number]) for number in made)
    StageResult(cost.seconds, cost.peak_memory_bytes, details=details).write(out)


def _renewal(job: Job, stage: Vocabulary, old: PreTrainedTokenizerFast) -> Renewal:
    """The new tokenizer, trained once for all methods of a stage."""
    assert job.parent
    settings = stage.model_dump(include={"tokens", "replace"})
    sources = [job.recipe.data[name] for name in stage.sources]
    fingerprint = storage.digest(
        {
            "kind": "renewal",
            "version": VERSIONS["vocabulary"],
            "tokenizer": storage.file_digest(job.parent.model_folder / "tokenizer.json"),
            "sources": [source_identity(source, job.recipe) for source in sources],
            **settings,
        }
    )

    def make(folder: Path) -> None:
        texts = chain.from_iterable(prepare.documents(job.store, each, job.recipe) for each in sources)
        made = (vocabulary.replace if stage.replace else vocabulary.extend)(old, texts, stage.tokens)
        made.tokenizer.save_pretrained(folder)
        links = {"anchored": list(made.anchored.items()), "spelling": made.spelling, "same": made.same}
        storage.write_json(folder / "links.json", links)

    folder = job.store.make(fingerprint, make)
    links = storage.read_json(folder / "links.json")
    tokenizer = models.load_tokenizer(folder)
    return Renewal(tokenizer, dict(links["anchored"]), links["spelling"], links["same"])


def _aligned(
    job: Job, stage: Vocabulary, old: PreTrainedTokenizerFast, renewal: Renewal
) -> list[dict[int, float]]:
    """For each new token the shares of the old ones that it aligns with in the recipe's parallel text."""
    section, recipe = stage.alignment, job.recipe
    assert section
    one = prepare.documents(job.store, recipe.data[section.old], recipe)
    other = prepare.documents(job.store, recipe.data[section.new], recipe)
    counts = alignment.align(
        list(vocabulary.words(old, one)), list(vocabulary.words(renewal.tokenizer, other)), section.rounds
    )
    return alignment.token_shares(counts, len(renewal.tokenizer))


def _rows(
    old: Tensor,
    method: EmbeddingMethod,
    renewal: Renewal,
    aligned: list[dict[int, float]] | None,
    seed: int,
) -> Tensor:
    """Embeddings of all new tokens by a method."""
    match method:
        case "translation":
            assert aligned is not None
            return embeddings.translation(old, aligned, renewal.spelling)
        case "mean":
            return embeddings.mean(old, renewal.spelling)
        case "copy":
            return embeddings.copy(old, renewal.same)
        case "random":
            return embeddings.random(old, len(renewal.tokenizer), seed)


def _mark(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give the model the ids of a tokenizer's marks."""
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.config.update(ids)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(models.END_OF_TURN)]
    model.generation_config = GenerationConfig(**{**ids, "eos_token_id": ends})


def _costs(
    job: Job, stage: Vocabulary, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> dict[str, list[float]]:
    """Tokens for a byte of each source under the old and the new tokenizer, on its first documents."""
    names = dict.fromkeys([*stage.sources, *([stage.alignment.old] if stage.alignment else [])])
    return {name: [_cost(tokenizer, _head(job, name)) for tokenizer in (old, new)] for name in names}


def _head(job: Job, name: str) -> list[str]:
    documents: Iterable[str] = prepare.documents(job.store, job.recipe.data[name], job.recipe)
    return [text for text, _ in zip(documents, range(SAMPLE), strict=False)]


def _cost(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return sum(map(len, encoded)) / sum(len(text.encode()) for text in texts)
