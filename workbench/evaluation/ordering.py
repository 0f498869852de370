"""Documents from easy to hard: by their perplexity under the model that is to learn from them.

Source: Llama-3-SynE (arXiv 2407.18743, section on the perplexity-based curriculum): each document is
scored by the model being adapted, and the stream goes from low to high perplexity. A document stands
alone here: it is cut into stretches of at most L tokens that know nothing of each other and overlap by
the one token that is only predicted from, so that every token but its first is predicted once.

Letters: D documents, P stretches in one forward pass, L tokens predicted in a stretch, V tokens in the
vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from workbench.data import NO_TARGET, TokenFile
from workbench.errors import DataError, NumericsError
from workbench.evaluation.perplexity import MAX_LOGITS
from workbench.progress import progress

Order = Literal["easy-to-hard", "hard-to-easy"]

SCORES = "scores.bin"
DOCUMENTS_AT_A_TIME = 1024  # scored between two writes
ROWS = 64


def score(
    model: PreTrainedModel, file: TokenFile, length: int, folder: Path, title: str
) -> NDArray[np.float64]:
    """Score every document; goes on from what a stopped try left in the folder.

    Args:
        model: a causal language model in the Hugging Face form, on its device.
        file: D documents under the model's tokenizer.
        length: L, tokens predicted in one stretch.
        folder: gets `scores.bin`, float64, little-endian.
        title: shown with the progress.

    Returns:
        [D] float64, nats a predicted token: the logarithm of each document's perplexity; infinite for a
        document of a single token, which predicts nothing and so comes last.

    Raises:
        NumericsError: a loss is not a finite number.
    """
    path = folder / SCORES
    done = path.stat().st_size // 8 if path.is_file() else 0
    with path.open("ab") as scores, progress(title, file.num_documents, "documents", done=done) as advance:
        scores.truncate(8 * done)
        for first in range(done, file.num_documents, DOCUMENTS_AT_A_TIME):
            some = range(first, min(first + DOCUMENTS_AT_A_TIME, file.num_documents))
            scores.write(document_nats(model, file, some, length).astype("<f8").tobytes())
            scores.flush()
            advance(len(some))
    return read(path)


def read(path: Path) -> NDArray[np.float64]:
    """The scores that `score` wrote, [D] float64."""
    return np.fromfile(path, "<f8")


@torch.no_grad()
def document_nats(
    model: PreTrainedModel, file: TokenFile, documents: range, length: int
) -> NDArray[np.float64]:
    """Mean negative log-likelihood of some documents' tokens, each document alone.

    Returns:
        [len(documents)] float64, nats a predicted token; infinite where nothing is predicted.

    Raises:
        NumericsError: a loss is not a finite number.
    """
    stretches = [
        (i, start, min(start + length + 1, int(file.starts[i + 1])))
        for i in documents
        for start in range(int(file.starts[i]), int(file.starts[i + 1]) - 1, length)
    ]
    stretches.sort(key=lambda stretch: (stretch[2] - stretch[1], stretch[1]))  # little padding
    nats, predicted = np.zeros(len(documents)), np.zeros(len(documents))
    rows = max(1, min(ROWS, MAX_LOGITS // (length * model.config.vocab_size)))
    for first in range(0, len(stretches), rows):
        some = stretches[first : first + rows]
        owner = np.array([i for i, _, _ in some]) - documents.start
        losses = _stretch_nats(model, [file.tokens[start:stop].astype(np.int64) for _, start, stop in some])
        if not np.isfinite(losses).all():
            raise NumericsError(
                f"{file.name}, document {some[int(np.isfinite(losses).argmin())][0]}: the loss is not "
                "finite, so the model's weights or activations overflow; load it with model.dtype: float32"
            )
        np.add.at(nats, owner, losses)
        np.add.at(predicted, owner, [stop - start - 1 for _, start, stop in some])
    scores = np.full(len(documents), np.inf)
    np.divide(nats, predicted, out=scores, where=predicted > 0)
    return scores


def _stretch_nats(model: PreTrainedModel, stretches: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Summed negative log-likelihood of each stretch behind its first token, [P] float64."""
    longest = max(map(len, stretches))
    tokens = torch.zeros(len(stretches), longest, dtype=torch.int64)  # [P, L + 1]; padding is never looked at
    labels = torch.full((len(stretches), longest), NO_TARGET)
    for row, stretch in enumerate(stretches):
        tokens[row, : len(stretch)] = torch.from_numpy(stretch)
        labels[row, : len(stretch)] = tokens[row, : len(stretch)]
    logits = model(input_ids=tokens[:, :-1].to(model.device), use_cache=False).logits  # [P, L, V]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        labels[:, 1:].flatten().to(logits.device),
        ignore_index=NO_TARGET,
        reduction="none",
    )
    summed: NDArray[np.float64] = losses.view(len(stretches), -1).double().sum(1).cpu().numpy()
    return summed


def permutation(scores: NDArray[np.float64], order: Order) -> NDArray[np.int64]:
    """The documents in order of their scores; equal ones keep theirs, and hard-to-easy is the reverse.

    Raises:
        DataError: no document has a score, for each is a single token.
    """
    if not np.isfinite(scores).any():
        raise DataError(
            f"none of {len(scores)} documents has two tokens, so none can be ordered; give it text"
        )
    rising = np.argsort(scores, kind="stable")
    return rising if order == "easy-to-hard" else rising[::-1].copy()
