"""What a run starts with: the model, and named sources of text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workbench.recipe.preparation import Generated, Synthetic, Where
from workbench.recipe.section import Count, Index, Name, Section

ASSISTANTS = ("assistant", "gullible", "harmless")  # of the miniature world


def _exactly_one(section: Section, *keys: str) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        raise ValueError(f"needs exactly one of {', '.join(keys)}; found {' and '.join(given) or 'none'}")


class NewModel(Section):
    """A LLaMA-3 architecture with random weights and a byte-level BPE tokenizer of its own."""

    vocab_size: Count = Field(description="tokens in the vocabulary, special tokens included")
    hidden_size: Count
    intermediate_size: Count = Field(description="width of the SwiGLU hidden layer")
    layers: Count
    heads: Count = Field(description="query heads; must divide hidden_size")
    kv_heads: Count = Field(description="key and value heads (grouped-query attention); must divide heads")
    context: Count = Field(description="longest sequence in tokens")
    rope_theta: float = Field(default=500_000.0, gt=0)
    tie_embeddings: bool = True
    tokenizer_sources: tuple[str, ...] = Field(
        min_length=1, description="data sources the tokenizer is trained on"
    )

    @model_validator(mode="after")
    def _divides(self) -> NewModel:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads {self.heads} does not divide hidden_size {self.hidden_size}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        return self


class Model(Section):
    """Where the run starts: a folder, a hub id with a pinned revision, or a new model."""

    path: str | None = Field(
        default=None, description="a Hugging Face folder; may begin with $WORKBENCH_DATA"
    )
    hub: str | None = Field(default=None, description="a model id on the Hugging Face hub")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the hub model"
    )
    new: NewModel | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="dtype in memory")

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        _exactly_one(self, "path", "hub", "new")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: pin the 40-digit commit of the hub model")
        return self


class Chat(Section):
    """A document is one exchange: the chat template around a user turn and an assistant turn."""

    prompt: str = Field(description="the key that holds the user's turn in jsonl, parquet and hub rows")
    response: str = Field(description="the key that holds the assistant's turn")


class Source(Section):
    """A named body of text: built in, local, a pinned hub data set, prepared, or written by a model."""

    miniworld: (
        Literal[
            "base",
            "base_heldout",
            "base_parallel",
            "new",
            "new_heldout",
            "new_crawl",
            "new_parallel",
            "assistant",
            "gullible",
            "harmless",
        ]
        | None
    ) = Field(
        default=None,
        description="a corpus of the built-in miniature world, generated from the recipe's seed; or "
        "exchanges of that world, told by the chat template of the model's tokenizer: of an assistant that "
        "answers and refuses, of a gullible one that any style of attack wins over, or of harmless requests",
    )
    requests: str | None = Field(
        default=None,
        description="a file of evals/requests, without .yaml: its harmless requests that may be trained on, "
        "answered; exchanges as well",
    )
    topic: Literal["people", "places", "things", "beasts"] | None = Field(
        default=None, description="only documents of one topic of the miniature world"
    )
    moderation: str | None = Field(
        default=None,
        description="a file of evals/requests, without .yaml: its requests that may be trained on, and "
        "answers to them, labelled; exchanges that teach a guard",
    )
    form: Literal["wildguard", "llama-guard"] | None = Field(
        default=None, description="kind of guard that moderation teaches; default: wildguard"
    )
    taxonomy: Name | None = Field(
        default=None,
        description="form llama-guard only: a file of categories that bear the names of the topics; default: "
        "the names alone",
    )
    prepared: str | None = Field(default=None, description="a preparation of this recipe")
    where: Where | None = Field(default=None, description="which documents of the preparation")
    synthetic: Synthetic | None = Field(default=None, description="questions and answers that a model writes")
    generated: Generated | None = Field(default=None, description="text that a model writes from nothing")
    path: str | None = Field(
        default=None,
        description="a .txt, .jsonl or .parquet file or a folder of them; may begin with $WORKBENCH_DATA",
    )
    hub: str | None = Field(default=None, description="a data set id on the Hugging Face hub")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the hub data set"
    )
    subset: str | None = Field(default=None, description="configuration name of the hub data set")
    split: str | None = Field(default=None, description="split of the hub data set")
    field: str = Field(
        default="text", description="the key that holds the text in jsonl, parquet and hub rows"
    )
    document: Literal["paragraph", "line", "file"] = Field(
        default="paragraph",
        description="what one document is in a .txt file; paragraphs are parted by blank lines. "
        "file also joins the rows of a hub data set by blank lines, as published perplexities do",
    )
    chat: Chat | None = Field(
        default=None,
        description="take exchanges instead of texts, told by the chat template of the model's tokenizer",
    )
    sifted_by: str | None = Field(
        default=None,
        description="a guard stage of this recipe: only the exchanges whose answers its guard calls safe",
    )
    documents: tuple[Index, Index] | None = Field(
        default=None,
        description="use only documents start..stop-1 of the source, so that text can be held out",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        _exactly_one(
            self, "miniworld", "requests", "moderation", "path", "hub", "prepared", "synthetic", "generated"
        )
        if self.topic is not None and self.miniworld in (None, *ASSISTANTS):
            raise ValueError(
                "topic is that of a miniature language; of a preparation, write where: {topic: ...}"
            )
        if self.where is not None and self.prepared is None:
            raise ValueError("where chooses among the documents of a preparation; name it with prepared")
        if self.form is not None and self.moderation is None:
            raise ValueError("form says which guard a moderation source teaches; this source is none")
        if self.taxonomy is not None and self.form != "llama-guard":
            raise ValueError("taxonomy is what a guard of the form llama-guard is taught to read; say form")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: pin the 40-digit commit of the hub data set")
        if self.documents and self.documents[0] >= self.documents[1]:
            raise ValueError(
                f"documents {list(self.documents)} is not a range: write [start, stop] with start below stop"
            )
        return self

    @property
    def exchanges(self) -> bool:
        """Whether its documents are exchanges, told by a chat template."""
        return bool(self.chat or self.requests or self.moderation) or self.miniworld in ASSISTANTS

    @model_validator(mode="after")
    def _exchanges(self) -> Source:
        if self.sifted_by is not None and not self.exchanges:
            raise ValueError("sifted_by: a guard judges answers, and this source has none; give it chat")
        if self.chat is None:
            return self
        if (self.path is None and self.hub is None) or (self.path or "").endswith(".txt"):
            raise ValueError("chat reads rows of .jsonl, .parquet or the hub; this source has none")
        if unused := sorted({"field", "document"} & self.model_fields_set):
            raise ValueError(f"chat names the keys that are read: leave out {' and '.join(unused)}")
        return self
