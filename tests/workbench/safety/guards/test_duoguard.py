"""DuoGuard: the loss has its limits and its gradient the right sign; any hazard is unsafe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import softplus

from workbench.errors import DataError, ModelError
from workbench.safety.guards import DuoGuard
from workbench.safety.guards.duoguard import CATEGORIES, multi_label_loss


def test_loss_of_one_hazard_is_the_binary_one() -> None:
    logits = torch.randn(6, 1, dtype=torch.float64)
    labels = torch.tensor([[0], [1], [1], [0], [1], [0]])
    signs = 1 - 2 * labels
    assert multi_label_loss(logits, labels).item() == pytest.approx(softplus(signs * logits).mean().item())


def test_loss_is_that_of_the_paper() -> None:
    logits, labels = torch.randn(5, 12, dtype=torch.float64), torch.randint(0, 2, (5, 12))
    by_hand = [
        (1 + sum(s.exp() for s, has in zip(row, of, strict=True) if not has)).log()
        + (1 + sum((-s).exp() for s, has in zip(row, of, strict=True) if has)).log()
        for row, of in zip(logits, labels, strict=True)
    ]
    assert multi_label_loss(logits, labels).item() == pytest.approx(torch.stack(by_hand).mean().item())


def test_gradient_lifts_hazards_and_lowers_the_rest() -> None:
    logits = torch.randn(8, 12).requires_grad_()
    labels = torch.randint(0, 2, (8, 12))
    multi_label_loss(logits, labels).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad[labels == 1] < 0).all() and (logits.grad[labels == 0] > 0).all()


def test_harmless_text_has_the_first_term_alone() -> None:
    logits = torch.randn(3, 12)
    expected = torch.log1p(logits.exp().sum(1)).mean()
    assert multi_label_loss(logits, torch.zeros(3, 12)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_of_certain_answers_is_finite() -> None:
    labels = torch.tensor([[1, 0]])
    assert multi_label_loss(torch.tensor([[1e4, -1e4]]), labels).item() == 0
    assert multi_label_loss(torch.tensor([[-1e4, 1e4]]), labels).item() == pytest.approx(2e4)


def test_verdicts_are_those_it_was_taught(duoguard: DuoGuard, rows: list[Any]) -> None:
    for row, verdict in zip(rows, duoguard.judge([row.prompt for row in rows]), strict=True):
        assert verdict.is_unsafe() is (row.hazard is not None)
        assert verdict.categories == (() if row.hazard is None else (duoguard.categories[row.hazard],))
        assert verdict.refusal is None


def test_scores_are_sigmoids_of_each_text_alone(duoguard: DuoGuard, rows: list[Any]) -> None:
    """Padding to the longest of a batch changes nothing; a response is read after its prompt."""
    texts = [f"{row.prompt} {row.answer}" for row in rows]
    with torch.no_grad():
        alone = torch.cat(
            [
                duoguard.model(torch.tensor([duoguard.tokenizer.encode(text)])).logits.double().sigmoid()
                for text in texts
            ]
        )
    together = duoguard.scores([row.prompt for row in rows], [row.answer for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    in_pairs = replace(duoguard, batch_size=2).scores(texts)
    torch.testing.assert_close(in_pairs, alone, atol=1e-5, rtol=0)
    last, first = duoguard.categories[-1], duoguard.categories[0]
    torch.testing.assert_close(duoguard.category_scores(texts, None, [last, first]), together[:, [-1, 0]])
    verdicts = duoguard.judge(texts)
    assert [each.unsafe for each in verdicts] == pytest.approx(alone.amax(1).tolist(), abs=1e-5)


def test_model_that_does_not_fit_is_refused(
    duoguard: DuoGuard, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="the classifier has 2 labels, but 12 categories"):
        DuoGuard(duoguard.model, duoguard.tokenizer, CATEGORIES)
    with pytest.raises(DataError, match=r"row 1: \d+ tokens, but the guard reads 512"):
        duoguard.judge([rows[0].prompt, rows[0].prompt * 60])
    monkeypatch.setattr(duoguard.model.config, "pad_token_id", None)
    with pytest.raises(ModelError, match="no pad_token_id"):
        replace(duoguard)


def test_real_text_is_judged_in_bounds(duoguard: DuoGuard, shared_data: Path) -> None:
    text = (shared_data / "text/dutch_alpino_dev.txt").read_text(encoding="utf-8").splitlines()[:8]
    scores = duoguard.scores(text)
    assert ((scores > 0) & (scores < 1)).all()
