"""DPO and MoGU as stages: what is written, what is told of it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from workbench import miniworld, models, recipe
from workbench.errors import DataError
from workbench.recipe.inputs import NewModel
from workbench.safety.triplets import Triplet
from workbench.stages import load, preference
from workbench.stages.job import Job, jobs_by_name
from workbench.stages.result import StageResult
from workbench.storage import Store
from workbench.training import log

RECIPE = """\
name: tiny
description: prefer to refuse
seed: 1
model: {{path: {folder}}}
data: {{harmless: {{miniworld: harmless, documents: [0, 20]}}}}
stages:
  - kind: safety
    methods: [dpo, mogu]
    triplets: {{requests: miniworld, judge: {{kind: miniworld}}}}
    mixture: {{harmless: 1.0}}
    share: 0.5
    dpo: {{lora: {{rank: 4}}, anchor: 0.5}}
    mogu: {{rank: 2, router_width: null, router_tokens: 3}}
    tokens: {tokens}
    batch_size: 4
    sequence_length: {length}
    learning_rate: 1e-2
"""
SECTION = {"hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1, "kv_heads": 1, "context": 256}
TOLD = {"topics": ["waking"], "style": "story", "split": "train", "chosen_source": "x", "rejected_judge": "x"}
TRIPLETS = [
    Triplet(
        id=f"{n}",
        base_id=f"{n}",
        prompt=f"How do I wake beast {n}?",
        chosen="Sorry, no.",
        rejected="To wake the beast, burn herbs at its gate until it rises.",
        rejected_score=1.0,
        **TOLD,  # type: ignore[arg-type]
    )
    for n in range(6)
]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A job over a target in the store, whose triplets are made up."""
    monkeypatch.setattr(preference.triplets, "read", lambda job: TRIPLETS)
    texts = [TRIPLETS[0].rejected, *(prompt for prompt, _ in miniworld.exchanges("harmless", 1))]
    tokenizer = models.train_tokenizer(texts, 400)
    section = NewModel.model_validate({**SECTION, "vocab_size": 400, "tokenizer_sources": ("a",)})
    models.save(models.new(section, 0), tokenizer, tmp_path / "target", {})

    def made(name: str, length: int = 96) -> Job:
        path = tmp_path / "recipe.yaml"
        settings = {"length": length, "tokens": 6 * 4 * length}
        path.write_text(RECIPE.format(folder=tmp_path / "target", **settings))
        by_name = jobs_by_name(recipe.load(path).recipe, Store(tmp_path / "store"))
        base = by_name["base"]
        base.store.make(base.fingerprint, lambda out: load.build(base, out))
        return by_name[name]

    return made


@pytest.mark.parametrize("method", ["dpo", "mogu"])
def test_a_stage_leaves_a_model_its_result_and_its_log(
    job: Callable[..., Job], tmp_path: Path, method: str
) -> None:
    made, out = job(f"safety-{method}"), tmp_path / "out"
    out.mkdir()
    preference.build(made, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "metrics.jsonl",
        "model",
        "request.json",
        "result.json",
    ]
    result, rows = StageResult.read(out), log.read(out / "metrics.jsonl")
    assert result.details["pairs"] == {"triplets": 6, "harmless": 12}
    assert result.details["epochs"] == {"triplets": 2.0, "harmless": 1.0}
    assert result.details["steps"] == len(rows) == 6 and result.details["tokens"] == rows[-1]["tokens"]
    assert not any("sequence_length" in warning for warning in result.warnings)
    assert made.parent is not None
    start, model = models.load(made.parent.model_folder), models.load(out / "model")
    tokens = torch.tensor([[1, 5, 9]])
    if method == "dpo":  # adapters are merged, and the rest is as it was
        assert type(model) is type(start) and model.config.to_dict().keys() == start.config.to_dict().keys()
        assert torch.equal(model.get_input_embeddings().weight, start.get_input_embeddings().weight)
        assert not torch.equal(model(tokens).logits, start(tokens).logits)
        assert model.config.pad_token_id == start.config.pad_token_id
    else:
        assert isinstance(model, models.MoguModel)
        added = models.count_parameters(model.config) - models.count_parameters(start.config)
        # two updates of rank 2 and two routers of one vector and one number, in one layer
        assert result.details["added_parameters"] == added == 2 * 2 * 32 + 2 * 17
        assert result.details["routed_tokens"] == 3
        with models.responding(model, "base"):
            assert torch.equal(model(tokens).logits, start(tokens).logits)


def test_what_does_not_fit_is_told_and_nothing_but_that_is_an_error(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    made = job("safety-dpo", length=36)
    told = preference._write_pairs(
        made, made.variant.stage, models.load_tokenizer(made.parent.model_folder), tmp_path
    )
    assert sum(told["cut"].values()) > 0
    assert any("answers were cut at their end" in line for line in preference._unfit(told))
    with pytest.raises(DataError, match="triplets: no prompt leaves room for an answer in 4 tokens; raise"):
        preference.build(job("safety-dpo", length=4), tmp_path)
