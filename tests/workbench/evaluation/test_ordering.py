"""Documents are scored one by one, as if each were alone, and come in the order of their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from workbench.data import TokenFile
from workbench.errors import DataError, NumericsError
from workbench.evaluation import ordering


def alone(model: LlamaForCausalLM, file: TokenFile, document: int, length: int) -> float:
    """Mean nats of one document, stretch by stretch, by the library's own loss."""
    tokens = torch.tensor(file.tokens[file.starts[document] : file.starts[document + 1]].astype(np.int64))
    nats = 0.0
    for start in range(0, len(tokens) - 1, length):
        stretch = tokens[start : start + length + 1][None]
        with torch.no_grad():
            nats += model(input_ids=stretch, labels=stretch).loss.item() * (stretch.shape[1] - 1)
    return nats / (len(tokens) - 1)


@pytest.mark.parametrize("length", [3, 64])
def test_each_document_is_scored_alone(
    model: LlamaForCausalLM, text: TokenFile, length: int, tmp_path: Path
) -> None:
    scores = ordering.score(model, text, length, tmp_path, "scores")
    expected = [alone(model, text, i, length) for i in range(text.num_documents)]
    assert np.allclose(scores, expected, rtol=1e-5)


def test_a_stopped_try_is_gone_on_with(
    model: LlamaForCausalLM, text: TokenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "DOCUMENTS_AT_A_TIME", 5)
    whole = ordering.score(model, text, 64, tmp_path, "scores")
    path = tmp_path / ordering.SCORES
    path.write_bytes(path.read_bytes()[: 8 * 10 + 3])  # ten documents and a piece of the next
    scored: list[range] = []
    plain = ordering.document_nats

    def watched(m: LlamaForCausalLM, file: TokenFile, some: range, length: int) -> np.ndarray:
        scored.append(some)
        return plain(m, file, some, length)

    monkeypatch.setattr(ordering, "document_nats", watched)
    assert np.array_equal(ordering.score(model, text, 64, tmp_path, "scores"), whole)
    assert scored[0] == range(10, 15) and scored[-1].stop == text.num_documents


def test_hard_to_easy_is_easy_to_hard_backwards() -> None:
    scores = np.array([2.0, 1.0, np.inf, 1.0, 0.5])
    rising = ordering.permutation(scores, "easy-to-hard")
    assert rising.tolist() == [4, 1, 3, 0, 2]
    assert ordering.permutation(scores, "hard-to-easy").tolist() == rising.tolist()[::-1]


def test_what_predicts_nothing_cannot_be_ordered() -> None:
    with pytest.raises(DataError, match="none of 3 documents has two tokens"):
        ordering.permutation(np.full(3, np.inf), "easy-to-hard")


def test_a_loss_that_is_no_number_is_an_error(model: LlamaForCausalLM, text: TokenFile) -> None:
    broken = LlamaForCausalLM(model.config)
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(NumericsError, match="sentences, document 0: the loss is not finite"):
        ordering.document_nats(broken, text, range(1), 64)
