"""From text to batches: sources of documents, token files, and the mixture that draws packed rows."""

from workbench.data.chat import render
from workbench.data.curriculum import plan
from workbench.data.mixture import Mixture
from workbench.data.packing import NO_TARGET, Batch, attention_mask, pack
from workbench.data.prepared import prepared
from workbench.data.reading import pass_tokens
from workbench.data.reordering import reorder
from workbench.data.sources import Render, documents, held, identity, joined, resolve
from workbench.data.tokens import TokenFile, Window, write_tokens

__all__ = [
    "NO_TARGET",
    "Batch",
    "Mixture",
    "Render",
    "TokenFile",
    "Window",
    "attention_mask",
    "documents",
    "held",
    "identity",
    "joined",
    "pack",
    "pass_tokens",
    "plan",
    "prepared",
    "render",
    "reorder",
    "resolve",
    "write_tokens",
]
