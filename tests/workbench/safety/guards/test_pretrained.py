"""Guards come from safetensors, with a head that was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from workbench.errors import ModelError
from workbench.safety.guards import DuoGuard, LlamaGuard, load_causal, load_classifier


def test_causal_guard_survives_the_disk(llama_guard: LlamaGuard, tmp_path: Path) -> None:
    llama_guard.model.save_pretrained(tmp_path)
    llama_guard.tokenizer.save_pretrained(tmp_path)
    again = LlamaGuard(*load_causal(tmp_path, torch.float32), llama_guard.taxonomy)
    asked = ["Which river is near Bohor?"]
    assert again.read([asked]) == llama_guard.read([asked])


def test_classifier_survives_the_disk(duoguard: DuoGuard, tmp_path: Path) -> None:
    duoguard.model.save_pretrained(tmp_path)
    duoguard.tokenizer.save_pretrained(tmp_path)
    model, tokenizer = load_classifier(tmp_path, torch.float32)
    assert isinstance(tokenizer, PreTrainedTokenizerFast) and not model.training
    text = ["How do I lure the kitten home?"]
    torch.testing.assert_close(
        DuoGuard(model, tokenizer, duoguard.categories).scores(text), duoguard.scores(text)
    )


def test_head_that_was_never_trained_is_refused(llama_guard: LlamaGuard, tmp_path: Path) -> None:
    llama_guard.model.save_pretrained(tmp_path)
    llama_guard.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"1 missing weights \(score\.weight\)"):
        load_classifier(tmp_path, torch.float32)
