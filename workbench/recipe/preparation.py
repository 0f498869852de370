"""What happens to text before it is read: clean, tag, select, and write new text from it."""

from __future__ import annotations

from itertools import chain
from typing import Literal

from pydantic import Field, model_validator

from workbench.recipe.section import Count, Section, Share


class Near(Section):
    """Near-duplicates, found by MinHash over word n-grams in bands (Broder 1997)."""

    similarity: float = Field(default=0.72, gt=0, lt=1, description="Jaccard similarity that counts as equal")
    ngram: Count = 5
    permutations: Count = Field(default=112, description="hashes of a signature")


class Decontamination(Section):
    """Documents that share word n-grams with a task on which the recipe evaluates."""

    ngram: Count = Field(
        default=13, description="words; a question with fewer is looked for whole, from `shortest` words on"
    )
    shortest: Count = Field(default=8, description="questions with fewer words are not looked for")


class Labels(Section):
    """Tags by a small classifier that is trained on texts of each label."""

    seeds: dict[str, str] = Field(min_length=2, description="for each label, a source of texts that have it")
    documents: Count = Field(default=2000, description="most seed texts of a label")


class Quality(Section):
    """Perplexity under an n-gram model of trusted text; low is good (arXiv 2406.14833, strategy II)."""

    reference: str = Field(description="source of trusted text")
    order: Count = Field(default=3, description="n of the n-grams of words")
    documents: Count = Field(default=20_000, description="most texts of the reference")


class Preparation(Section):
    """Sources cleaned and tagged once, in shards that survive a stop; read by sources with `prepared`."""

    sources: list[str] = Field(min_length=1)
    exact: bool = Field(default=True, description="drop documents that have been seen before")
    near: Near | None = Field(default=None, description="drop near-duplicates")
    decontaminate: Decontamination | None = Field(
        default=None, description="drop what the evaluation asks about"
    )
    language: Labels | None = Field(default=None, description="tag each document with its language")
    topic: Labels | None = Field(default=None, description="tag each document with its topic")
    quality: Quality | None = Field(default=None, description="score each document")
    shard: Count = Field(default=10_000, description="documents of one shard")

    @property
    def texts(self) -> set[str]:
        """Names of all sources that are read: prepared, as seeds, and as trusted text."""
        tags = [labels.seeds.values() for labels in (self.language, self.topic) if labels]
        trusted = [self.quality.reference] if self.quality else []
        return {*self.sources, *chain.from_iterable(tags), *trusted}


class Where(Section):
    """Which documents of a preparation a source takes."""

    language: str | None = None
    topic: str | None = None
    best: Share | None = Field(default=None, description="share of the rest with the best quality")

    @model_validator(mode="after")
    def _something(self) -> Where:
        if self.language is None and self.topic is None and self.best is None:
            raise ValueError("says nothing; give language, topic or best, or leave it out")
        return self


class Writer(Section):
    """Who writes: a variant of this run, a model folder, or a server that speaks the OpenAI protocol."""

    variant: str | None = None
    path: str | None = Field(default=None, description="a model folder; may begin with $WORKBENCH_DATA")
    endpoint: str | None = Field(default=None, description="base URL; the key is read from OPENAI_API_KEY")
    model: str | None = Field(default=None, description="name of the endpoint's model")

    @model_validator(mode="after")
    def _one(self) -> Writer:
        given = [key for key in ("variant", "path", "endpoint") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of variant, path, endpoint; found {', '.join(given) or 'none'}"
            )
        if (self.endpoint is None) != (self.model is None):
            raise ValueError("endpoint and model go together")
        return self


class Synthetic(Section):
    """Snippets, each followed by a question and an answer that a model wrote from it (SynE, 2407.18743)."""

    snippets: str = Field(description="source of the snippets")
    writer: Writer
    documents: Count = Field(description="pairs to keep")
    prompt: str = Field(
        default="{snippet}\n\nQuestion:", description="what the writer goes on from; {snippet} is filled in"
    )
    answer: str = Field(default="Answer:", description="what parts the question from its answer")
    stop: str = Field(default="\n\n", description="what ends a pair")
    max_new_tokens: Count = 256
    temperature: float = Field(default=0.7, ge=0)
    shortest: Count = Field(default=3, description="fewest words of a question, and of an answer")
    overlap: Share = Field(
        default=0.2, description="smallest share of the answer's words that are in the snippet"
    )
    discard: Literal["longer", "none"] = Field(
        default="longer", description="longer: pairs that did not end within max_new_tokens are dropped"
    )


class Generated(Section):
    """Text that a model writes from nothing, for training without data (LLM-QAT, arXiv 2305.17888).

    An endpoint has to complete plain text, not only chats.
    """

    writer: Writer
    documents: Count = Field(description="texts to write")
    max_new_tokens: Count = Field(default=256, description="longest text, in tokens")
    temperature: float = Field(default=1.0, gt=0)
