"""A vocabulary goes the whole way, from a recipe to rows that are told apart by how they begin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workbench import models, recipe, storage
from workbench.run import forecast, walk
from workbench.stages.result import StageResult
from workbench.storage import Store

STAGES = """\
  - {kind: vocabulary, sources: [new], tokens: 60, methods: [translation, mean, copy, random],
     alignment: {old: old-twin, new: new-twin}}
  - {kind: vocabulary, name: own, from: base, sources: [new], tokens: 300, replace: true, methods: [mean]}
  - {kind: cpt, from: vocabulary-translation, methods: [lora, freeze], mixture: {new: 1.0}, tokens: 1024,
     batch_size: 8, sequence_length: 64, learning_rate: 1e-2, lora: {rank: 2, train_embeddings: true},
     freeze: {patterns: ["model.layers.*", model.norm.weight]}}
evaluate: {battery: miniworld, rows: [base, vocabulary-mean, own-mean]}
"""


@pytest.fixture(scope="module")
def run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = tiny_recipe.read_text().split("  - {kind: cpt")[0].replace("name: tiny", "name: young")
    twins = "  old-twin: {miniworld: base_parallel}\n  new-twin: {miniworld: new_parallel}\n"
    root = tmp_path_factory.mktemp("vocabulary")
    (root / "young.yaml").write_text(text.replace("stages:\n", twins + "stages:\n") + STAGES)
    walk.run(recipe.load(root / "young.yaml"), root / "runs", "make recipe=young")
    return root / "runs" / "young"


def stage(run: Path, variant: str) -> Path:
    (found,) = (run / "stages").glob(f"??-*-{variant}")
    return found


def test_old_tokens_give_the_old_logits(run: Path) -> None:
    tokens = torch.arange(6, 70).reshape(2, 32)
    before = models.load(stage(run, "base") / "model")
    old = before(tokens).logits
    known = len(models.load_tokenizer(stage(run, "base") / "model"))
    for method in ("translation", "mean", "copy", "random"):
        after = models.load(stage(run, f"vocabulary-{method}") / "model")
        rows = after.get_input_embeddings().weight
        assert torch.equal(rows[:known], before.get_input_embeddings().weight[:known])
        torch.testing.assert_close(after(tokens).logits[..., :known], old[..., :known], rtol=0, atol=1e-5)


def test_methods_share_a_tokenizer_and_differ_in_new_rows(run: Path) -> None:
    folders = [stage(run, f"vocabulary-{m}") / "model" for m in ("translation", "mean", "copy", "random")]
    assert len({storage.file_digest(folder / "tokenizer.json") for folder in folders}) == 1
    made = [models.load(folder).get_input_embeddings().weight for folder in folders]
    assert all(not torch.equal(made[i], made[j]) for i in range(4) for j in range(i))


def test_says_what_text_costs(run: Path) -> None:
    details = StageResult.read(stage(run, "vocabulary-translation")).details
    before, after = details["tokens_per_byte"]["new"]
    assert after < 0.8 * before
    assert 0 < details["aligned_tokens"] <= details["new_tokens"] <= 60
    rows = {row["variant"]: row["metrics"] for row in storage.read_json(run / "sheet.json")["rows"]}
    key = "language.new.fertility"
    assert rows["vocabulary-mean"][key]["value"] < rows["base"][key]["value"]
    assert not rows["vocabulary-mean"][key]["higher_is_better"]


def test_a_tokenizer_of_its_own_gives_the_model_its_marks(run: Path) -> None:
    folder = stage(run, "own-mean") / "model"
    model, tokenizer = models.load(folder), models.load_tokenizer(folder)
    assert model.config.vocab_size == len(tokenizer) <= 300
    assert model.config.bos_token_id == tokenizer.bos_token_id
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id


def test_only_what_is_left_free_is_trained(run: Path) -> None:
    before = models.load(stage(run, "vocabulary-translation") / "model").state_dict()
    frozen = models.load(stage(run, "cpt-freeze") / "model").state_dict()
    adapted = models.load(stage(run, "cpt-lora") / "model").state_dict()
    embeddings = {name for name in before if "embed_tokens" in name or "lm_head" in name}
    assert {name for name in before if not torch.equal(before[name], frozen[name])} == embeddings
    changed = {name for name in before if not torch.equal(before[name], adapted[name])}
    assert changed == embeddings | {name for name in before if name.endswith("_proj.weight")}


def test_forecast_counts_the_new_rows(run: Path, tmp_path: Path) -> None:
    loaded = recipe.load(run.parents[1] / "young.yaml")
    found = {f.variant: f for f in forecast.forecast(walk.make_jobs(loaded.recipe, Store(tmp_path)))}
    assert found["vocabulary-mean"].parameters == found["base"].parameters + 60 * 32
    assert found["own-mean"].parameters == found["base"].parameters - 20 * 32
    assert found["cpt-lora"].trainable > found["cpt-freeze"].trainable == (320 + 60) * 32
