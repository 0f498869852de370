"""Perplexity and bits per byte of held-out text, in windows that know nothing of each other.

The tokens of the whole text, one document after the other with their BOS and EOS, are cut into windows
of L tokens without overlap. What happens within a window is the battery's choice:

    joined   each window is one causal sequence of which tokens 2..L are predicted, whatever documents
             it holds: the protocol of GPTQ (Frantar et al., arXiv 2210.17323, section 5), which
             published perplexities follow; the rest that fills no window is dropped
    apart    documents do not see each other, as in packed training: for texts of short documents. Where
             the whole text is read, the rest too, bits per byte are told document by document, so that
             models of different tokenizers are compared on the same items

Letters: B windows at a time, L tokens in a window, V tokens in the vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from workbench.data import NO_TARGET, Batch, TokenFile, Window, attention_mask, pack
from workbench.errors import DataError, NumericsError
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.measurement import Measurement
from workbench.progress import progress

# Logits of one forward pass, in values: 2 GiB in float32.
MAX_LOGITS = 2**29

Score = tuple[float, float, float]  # nats, predicted tokens and their bytes, of one window


@torch.no_grad()
def window_nats(model: nn.Module, windows: Tensor) -> Tensor:
    """Negative log-likelihood of each joined window's tokens 2..L.

    Args:
        model: a causal language model in the Hugging Face form.
        windows: [B, L] int64, on any device.

    Returns:
        [B] float64, nats, on the CPU.
    """
    windows = windows.to(next(model.parameters()).device)
    logits = model(input_ids=windows, use_cache=False).logits[:, :-1]  # [B, L - 1, V]
    return _nats(logits, windows[:, 1:]).sum(1)


@torch.no_grad()
def packed_nats(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of the target tokens of packed rows, documents apart.

    Args:
        model: a causal language model in the Hugging Face form.
        batch: packed rows [B, L].

    Returns:
        [B, L] float64, nats, 0 where there is no target, on the CPU.
    """
    device = next(model.parameters()).device
    logits = model(
        input_ids=batch.tokens.to(device),
        position_ids=batch.positions.to(device),
        attention_mask=attention_mask(batch.documents.to(device)),
        use_cache=False,
    ).logits  # [B, L, V]
    return _nats(logits, batch.labels.to(device))


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    nats = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_TARGET, reduction="none"
    )
    return nats.view(labels.shape).double().cpu()


def perplexity(
    model: PreTrainedModel,
    text: TokenFile,
    entry: TextEntry,
    batch_size: int,
    title: str,
    *,
    quiet: bool = False,
) -> list[Measurement]:
    """Perplexity of a text, one item a window, and bits per byte, one item a window or a document.

    Raises:
        DataError: the text does not fill one window.
        NumericsError: a window's loss is not a finite number.
    """
    length = entry.sequence_length
    count = text.windows(length) if entry.documents == "apart" else text.num_tokens // length
    if count == 0:
        raise DataError(
            f"text {entry.name}: {text.num_tokens} tokens do not fill one window of {length}; "
            "give it more text, or a smaller sequence_length"
        )
    whole = entry.documents == "apart" and entry.windows is None
    count = -(-(text.num_tokens - 1) // length) if whole else min(count, entry.windows or count)
    rows = max(1, min(batch_size, MAX_LOGITS // (length * model.config.vocab_size)))
    scores: list[Score] = []
    told = np.zeros((text.num_documents, 2))  # nats and bytes of each document
    with progress(f"{title}: perplexity of {entry.name}", count, "windows", quiet=quiet) as advance:
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            if entry.documents == "apart":
                scores += _apart(model, text, length, range(start, stop), told)
            else:
                scores += _joined(model, text, length, range(start, stop))
            advance(stop - start)
    finite = np.isfinite([nats for nats, _, _ in scores])
    if not finite.all():
        raise NumericsError(
            f"text {entry.name}, window {finite.argmin()}: the loss is not finite, so the model's weights "
            "or activations overflow; evaluate it in float32, or leave this row out"
        )
    return _measurements(scores, entry, text, told if whole else None)


def _joined(model: PreTrainedModel, text: TokenFile, length: int, windows: range) -> list[Score]:
    tokens = np.asarray(text.tokens[windows.start * length : windows.stop * length], dtype=np.int64)
    nats = window_nats(model, torch.from_numpy(tokens).view(-1, length)).tolist()
    sizes = [float(text.window_bytes(i, length)) for i in windows]
    return [(loss, length - 1.0, size) for loss, size in zip(nats, sizes, strict=True)]


def _apart(
    model: PreTrainedModel, text: TokenFile, length: int, windows: range, told: NDArray[np.float64]
) -> list[Score]:
    """Scores of some windows; adds their nats and bytes to what is `told` of each document, [D, 2]."""
    batch = pack([_window(text, i, length) for i in windows], [text.name] * len(windows), length)
    predicted = (batch.labels != NO_TARGET).numpy()  # [B, L]
    nats = packed_nats(model, batch).numpy()  # [B, L]
    labels = np.arange(windows.start * length + 1, windows.stop * length + 1)  # their places in the text
    inside = labels < text.num_tokens
    sizes = np.zeros(predicted.size)
    sizes[inside] = text.bytes[labels[inside]]
    sizes *= predicted.ravel()
    owner = np.searchsorted(text.starts, labels[inside], side="right") - 1
    np.add.at(told, owner, np.stack((nats.ravel()[inside], sizes[inside]), axis=1))
    scores = np.stack((nats, predicted, sizes.reshape(predicted.shape)), axis=-1).sum(1)  # [B, 3]
    return [(float(loss), float(tokens), float(size)) for loss, tokens, size in scores]


def _window(text: TokenFile, i: int, length: int) -> Window:
    """Window `i`; behind the end of the text every place is a document of its own, and so no target."""
    if i < text.windows(length):
        return text.window(i, length)
    start = i * length
    documents = np.searchsorted(text.starts, np.arange(start, start + length + 1), side="right")
    tokens = np.zeros(length + 1, dtype=np.int64)
    tokens[: text.num_tokens - start] = text.tokens[start:]
    documents += np.maximum(np.arange(start, start + length + 1) - text.num_tokens, 0)
    return Window(tokens, (documents - documents[0]).astype(np.int32))


def _measurements(
    scores: list[Score], entry: TextEntry, text: TokenFile, told: NDArray[np.float64] | None
) -> list[Measurement]:
    protocol = f"{len(scores)} windows of {entry.sequence_length} tokens, documents {entry.documents}"
    by_token = f"{protocol}, tokenizer {text.tokenizer[:8]}"  # another one predicts other tokens
    per_token = {str(i): (nats, tokens) for i, (nats, tokens, _) in enumerate(scores)}
    per_byte = {str(i): (nats, size) for i, (nats, _, size) in enumerate(scores)}
    if told is not None:
        per_byte = {str(i): (nats, size) for i, (nats, size) in enumerate(told.tolist())}
        protocol = f"{len(told)} documents apart, in windows of {entry.sequence_length} tokens"
    return [
        Measurement(entry.aspect, entry.name, "perplexity", per_token, "perplexity", False, by_token),
        Measurement(entry.aspect, entry.name, "bits_per_byte", per_byte, "bits_per_byte", False, protocol),
    ]
