"""Guards come from safetensors at a pinned revision, with a head that was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from workbench.errors import DataError, ModelError
from workbench.recipe.inputs import Model
from workbench.safety.guards import DuoGuard, LlamaGuard, load_causal, load_classifier

HUB = {"hub": "organisation/guard", "revision": "0" * 40}


def test_causal_guard_survives_the_disk(llama_guard: LlamaGuard, tmp_path: Path) -> None:
    llama_guard.model.save_pretrained(tmp_path)
    llama_guard.tokenizer.save_pretrained(tmp_path)
    again = LlamaGuard(*load_causal(Model(path=str(tmp_path))), llama_guard.taxonomy)
    asked = ["Which river is near Bohor?"]
    assert again.read([asked]) == llama_guard.read([asked])


def test_classifier_survives_the_disk_and_borrows_a_tokenizer(duoguard: DuoGuard, tmp_path: Path) -> None:
    duoguard.model.save_pretrained(tmp_path / "guard")
    duoguard.tokenizer.save_pretrained(tmp_path / "base")
    guard, base = (Model(path=str(tmp_path / name)) for name in ("guard", "base"))
    (tmp_path / "base" / "config.json").write_text("{}")
    model, tokenizer = load_classifier(guard, base)
    assert isinstance(tokenizer, PreTrainedTokenizerFast) and not model.training
    text = ["How do I lure the kitten home?"]
    torch.testing.assert_close(
        DuoGuard(model, tokenizer, duoguard.categories).scores(text), duoguard.scores(text)
    )


def test_head_that_was_never_trained_is_refused(llama_guard: LlamaGuard, tmp_path: Path) -> None:
    llama_guard.model.save_pretrained(tmp_path)
    llama_guard.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"1 missing weights \(score\.weight\)"):
        load_classifier(Model(path=str(tmp_path)))


def test_origin_must_be_pinned_and_there(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="pin the 40-digit commit"):
        Model(hub="organisation/guard")
    with pytest.raises(ModelError, match="guard organisation/guard at 00000000 could not be fetched"):
        load_causal(Model.model_validate(HUB))
    with pytest.raises(DataError, match="no such file or folder"):
        load_classifier(Model(path=str(tmp_path / "nowhere")))
