"""From text to batches: sources of documents, token files, and the mixture that draws packed rows."""

from workbench.data.chat import parted, render
from workbench.data.curriculum import plan
from workbench.data.formats import resolve
from workbench.data.mixture import Mixture
from workbench.data.packing import NO_TARGET, Batch, attention_mask, pack
from workbench.data.prepared import prepared
from workbench.data.reading import pass_tokens
from workbench.data.reordering import reorder
from workbench.data.rows import Row, Tokens, answered, tokenized, write_rows
from workbench.data.sources import (
    Exchange,
    Part,
    Render,
    documents,
    exchanges,
    held,
    identity,
    joined,
)
from workbench.data.tokens import TokenFile, Window, write_tokens

__all__ = [
    "NO_TARGET",
    "Batch",
    "Exchange",
    "Mixture",
    "Part",
    "Render",
    "Row",
    "TokenFile",
    "Tokens",
    "Window",
    "answered",
    "attention_mask",
    "documents",
    "exchanges",
    "held",
    "identity",
    "joined",
    "pack",
    "parted",
    "pass_tokens",
    "plan",
    "prepared",
    "render",
    "reorder",
    "resolve",
    "tokenized",
    "write_rows",
    "write_tokens",
]
