"""Perplexity and bits per byte of held-out text, in windows that know nothing of each other.

The tokens of the whole text, one document after the other with their BOS and EOS, are cut into windows
of L tokens without overlap; the rest that fills no window is dropped. What happens within a window is
the battery's choice:

    joined   each window is one causal sequence of which tokens 2..L are predicted, whatever documents
             it holds: the protocol of GPTQ (Frantar et al., arXiv 2210.17323, section 5), which
             published perplexities follow
    apart    documents do not see each other, as in packed training: for texts of short documents

Letters: B windows at a time, L tokens in a window, V tokens in the vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from workbench.data import NO_TARGET, Batch, TokenFile, attention_mask, pack
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
    return _summed(logits, windows[:, 1:])


@torch.no_grad()
def packed_nats(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of the target tokens of each row, documents apart.

    Args:
        model: a causal language model in the Hugging Face form.
        batch: packed rows [B, L].

    Returns:
        [B] float64, nats, on the CPU.
    """
    device = next(model.parameters()).device
    logits = model(
        input_ids=batch.tokens.to(device),
        position_ids=batch.positions.to(device),
        attention_mask=attention_mask(batch.documents.to(device)),
        use_cache=False,
    ).logits  # [B, L, V]
    return _summed(logits, batch.labels.to(device))


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    nats = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_TARGET, reduction="none"
    )
    return nats.view(labels.shape).double().sum(1).cpu()


def perplexity(
    model: PreTrainedModel,
    text: TokenFile,
    entry: TextEntry,
    batch_size: int,
    title: str,
    *,
    quiet: bool = False,
) -> list[Measurement]:
    """Perplexity and bits per byte of a text, one item a window.

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
    count = min(count, entry.windows or count)
    rows = max(1, min(batch_size, MAX_LOGITS // (length * model.config.vocab_size)))
    score = _apart if entry.documents == "apart" else _joined
    scores: list[Score] = []
    with progress(f"{title}: perplexity of {entry.name}", count, "windows", quiet=quiet) as advance:
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            scores += score(model, text, length, range(start, stop))
            advance(stop - start)
    finite = np.isfinite([nats for nats, _, _ in scores])
    if not finite.all():
        raise NumericsError(
            f"text {entry.name}, window {finite.argmin()}: the loss is not finite, so the model's weights "
            "or activations overflow; evaluate it in float32, or leave this row out"
        )
    return _measurements(scores, entry)


def _joined(model: PreTrainedModel, text: TokenFile, length: int, windows: range) -> list[Score]:
    tokens = np.asarray(text.tokens[windows.start * length : windows.stop * length], dtype=np.int64)
    nats = window_nats(model, torch.from_numpy(tokens).view(-1, length)).tolist()
    sizes = [float(text.window_bytes(i, length)) for i in windows]
    return [(loss, length - 1.0, size) for loss, size in zip(nats, sizes, strict=True)]


def _apart(model: PreTrainedModel, text: TokenFile, length: int, windows: range) -> list[Score]:
    batch = pack([text.window(i, length) for i in windows], [text.name] * len(windows), length)
    predicted = (batch.labels != NO_TARGET).numpy()  # [B, L]
    sizes = text.bytes[windows.start * length + 1 : windows.stop * length + 1].reshape(-1, length)
    nats = packed_nats(model, batch).tolist()
    return [
        (loss, float(mask.sum()), float(size[mask].sum()))
        for loss, mask, size in zip(nats, predicted, sizes, strict=True)
    ]


def _measurements(scores: list[Score], entry: TextEntry) -> list[Measurement]:
    protocol = f"{len(scores)} windows of {entry.sequence_length} tokens, documents {entry.documents}"
    per_token = {str(i): (nats, tokens) for i, (nats, tokens, _) in enumerate(scores)}
    per_byte = {str(i): (nats, size) for i, (nats, _, size) in enumerate(scores)}
    return [
        Measurement(entry.aspect, entry.name, "perplexity", per_token, "perplexity", False, protocol),
        Measurement(entry.aspect, entry.name, "bits_per_byte", per_byte, "bits_per_byte", False, protocol),
    ]
