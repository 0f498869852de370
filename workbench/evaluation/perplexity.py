"""Perplexity and bits per byte of held-out text, in windows that know nothing of each other.

The protocol of GPTQ (Frantar et al., arXiv 2210.17323, section 5): the tokens of the whole text, one
document after the other with their BOS and EOS, are cut into windows of L tokens without overlap; the
rest that fills no window is dropped; each window is one causal sequence of which tokens 2..L are
predicted. Letters: B windows at a time, L tokens in a window, V tokens in the vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from workbench.data import TokenFile
from workbench.errors import DataError, NumericsError
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.measurement import Measurement
from workbench.progress import progress

# Logits of one forward pass, in values: 2 GiB in float32.
MAX_LOGITS = 2**29


@torch.no_grad()
def window_nats(model: PreTrainedModel, windows: Tensor) -> Tensor:
    """Negative log-likelihood of each window's tokens 2..L.

    Args:
        model: a causal language model in the Hugging Face form.
        windows: [B, L] int64, on any device.

    Returns:
        [B] float64, nats, on the CPU.
    """
    windows = windows.to(next(model.parameters()).device)
    logits = model(input_ids=windows, use_cache=False).logits[:, :-1].float()  # [B, L - 1, V]
    nats = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
    return nats.view(len(windows), -1).double().sum(1).cpu()


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
    count = len(text.tokens) // length
    if count == 0:
        raise DataError(
            f"text {entry.name}: {len(text.tokens)} tokens do not fill one window of {length}; "
            "give it more text, or a smaller sequence_length"
        )
    count = min(count, entry.windows or count)
    vocabulary = model.config.vocab_size
    rows = max(1, min(batch_size, MAX_LOGITS // (length * vocabulary)))
    nats: list[float] = []
    with progress(f"{title}: perplexity of {entry.name}", count, "windows", quiet=quiet) as advance:
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            tokens = np.asarray(text.tokens[start * length : stop * length], dtype=np.int64)
            nats += window_nats(model, torch.from_numpy(tokens).view(-1, length)).tolist()
            advance(stop - start)
    finite = np.isfinite(nats)
    if not finite.all():
        raise NumericsError(
            f"text {entry.name}, window {finite.argmin()}: the loss is not finite, so the model's weights "
            "or activations overflow; evaluate it in float32, or leave this row out"
        )
    return _measurements(nats, text, entry)


def _measurements(nats: list[float], text: TokenFile, entry: TextEntry) -> list[Measurement]:
    length = entry.sequence_length
    protocol = f"{len(nats)} windows of {length} tokens, each on its own; documents joined as BOS text EOS"
    predicted = float(length - 1)
    tokens = {str(i): (loss, predicted) for i, loss in enumerate(nats)}
    bytes_ = {str(i): (loss, float(text.window_bytes(i, length))) for i, loss in enumerate(nats)}
    return [
        Measurement("language", entry.name, "perplexity", tokens, "perplexity", False, protocol),
        Measurement("language", entry.name, "bits_per_byte", bytes_, "bits_per_byte", False, protocol),
    ]
