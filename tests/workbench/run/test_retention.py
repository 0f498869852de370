"""Every method of forgetting control goes the whole way, from a recipe to a row, under two seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from workbench import models, recipe, storage
from workbench.errors import ModelError
from workbench.evaluation import battery
from workbench.run import forecast, walk
from workbench.stages.result import StageResult
from workbench.storage import Store

METHODS = ("control-llm", "llama-pro", "lora", "l2sp", "ewc", "distill", "freeze")
SETTINGS = """\
    control_llm: {blocks: 2, interpolator: dlerpin}
    llama_pro: {blocks: 1}
    lora: {rank: 2}
    ewc: {strength: 1, mixture: {old: 1.0}, sequences: 4}
    freeze: {patterns: [model.embed_tokens.*, model.layers.0.*]}
"""


@pytest.fixture(scope="module", autouse=True)
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The battery miniworld again, with a few of its questions and windows, for thirty rows."""
    folder = tmp_path_factory.mktemp("evals")
    shutil.copytree(battery.EVALS, folder, dirs_exist_ok=True)
    text = (folder / "batteries" / "miniworld.yaml").read_text().replace("name: miniworld", "name: few", 1)
    text = text.replace("name: facts}", "name: facts, limit: 24}").replace("apart}", "apart, windows: 8}")
    (folder / "batteries" / "few.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(battery, "EVALS", folder)
        yield


@pytest.fixture(scope="module")
def race(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = tiny_recipe.read_text().split("  - {kind: cpt")[0].replace("seed: 3", "seed: 3\nreplicates: 2")
    text += f"""\
  - kind: cpt
    methods: [full, {", ".join(METHODS)}]
    mixture: {{new: 1.0}}
    tokens: 2048
    batch_size: 8
    sequence_length: 64
    learning_rate: 1e-2
    probe_every: 2
    probe_limit: 8
{SETTINGS}
  - {{kind: merge, from: cpt-full, algorithms: [linear, dare], weights: [0, 1]}}
  - {{kind: merge-back, from: cpt-control-llm}}
  - {{kind: quantize, from: cpt-control-llm, methods: [rtn], bits: [8], group_size: 32}}
evaluate:
  battery: few
"""
    path = tmp_path_factory.mktemp("recipes") / "race.yaml"
    path.write_text(text.replace("name: tiny", "name: race"))
    return path


@pytest.fixture(scope="module")
def run(race: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    walk.run(recipe.load(race), root, "make recipe=race")
    return root / "race"


def stage(run: Path, variant: str) -> Path:
    (found,) = (run / "stages").glob(f"??-*-{variant}")
    return found


def test_every_method_is_a_row_of_pooled_questions(run: Path) -> None:
    rows = {row["variant"]: row for row in storage.read_json(run / "sheet.json")["rows"]}
    assert {rows[f"cpt-{method}"]["method"] for method in METHODS} == set(METHODS)
    assert rows["merge-linear-0"]["method"] == "merge" and rows["merged-back"]["method"] == "merge-back"
    for row in rows.values():
        metric = row["metrics"]["retained.facts.acc"]
        assert len(metric["seeds"]) == 2
        assert metric["value"] == pytest.approx(sum(metric["seeds"]) / 2)
    assert rows["cpt-lora"]["trainable_parameters"] < rows["cpt-full"]["trainable_parameters"]


def test_other_seeds_lie_beside_with_stages_and_measurements_of_their_own(run: Path) -> None:
    other = run / "seeds" / "4"
    assert (other / "stages" / "01-cpt-cpt-full").resolve() != stage(run, "cpt-full").resolve()
    assert (other / "evals" / "cpt-full" / "retained.facts.json").is_file()


def test_a_merge_of_weight_0_is_the_base_and_of_1_the_trained_model(run: Path) -> None:
    for variant, like in (("merge-linear-0", "base"), ("merge-linear-1", "cpt-full")):
        merged, other = (models.load(stage(run, name) / "model") for name in (variant, like))
        for mine, theirs in zip(merged.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_only_what_a_method_trains_has_moved(run: Path) -> None:
    base = models.load(stage(run, "base") / "model").state_dict()
    frozen = models.load(stage(run, "cpt-freeze") / "model").state_dict()
    moved = {name for name in base if not torch.equal(base[name], frozen[name])}
    assert moved and not {name for name in moved if "embed_tokens" in name or "layers.0." in name}
    copies = models.load(stage(run, "cpt-control-llm") / "model").state_dict()
    for name, weight in base.items():
        parted = name.split(".", 3)
        beside = f"model.layers.{parted[2]}.pretrained.{parted[3]}" if "layers" in name else name
        assert torch.equal(copies[beside], weight)


def test_shares_of_copies_are_measured_and_used_to_merge_back(run: Path) -> None:
    shares = StageResult.read(stage(run, "cpt-control-llm")).details["copy_shares"]
    assert len(shares) == 2 and all(0 < share < 1 for share in shares)
    assert StageResult.read(stage(run, "merged-back")).details["shares"] == shares


def test_merged_back_and_lora_load_where_workbench_is_unknown(
    run: Path, stranger: Callable[..., None]
) -> None:
    folders = [stage(run, name) / "model" for name in ("merged-back", "cpt-lora", "cpt-llama-pro")]
    code = (
        "import sys\nfrom transformers import AutoModelForCausalLM\n"
        "for path in sys.argv[1:]:\n"
        "    model, found = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)\n"
        "    assert type(model).__name__ == 'LlamaForCausalLM' and not any(found.values()), found\n"
        "assert not [name for name in sys.modules if name.startswith('workbench')]\n"
    )
    stranger(code, *folders)


def test_probes_are_dense_at_the_start_and_gaps_are_written(run: Path) -> None:
    rows = [
        row for row in (stage(run, "cpt-full") / "metrics.jsonl").read_text().splitlines() if "probe" in row
    ]
    assert len(rows) >= 3
    assert (run / "stability.json").is_file() and (run / "frontier.json").is_file()


def test_a_forecast_counts_what_is_trained(race: Path, tmp_path: Path) -> None:
    jobs = walk.make_jobs(recipe.load(race).recipe, Store(tmp_path))
    found = {entry.variant: entry for entry in forecast.forecast(jobs)}
    block = found["cpt-llama-pro"].trainable
    shares = 2 * (32 + 1)  # a linear of the hidden size and its bias, for each of two blocks; biases rest
    assert found["cpt-control-llm"].trainable == 2 * block + shares - 2
    assert found["cpt-control-llm"].parameters == found["base"].parameters + 2 * block + shares
    assert found["merged-back"].parameters == found["base"].parameters == found["cpt-lora"].parameters
    assert found["cpt-full"].trainable == found["base"].parameters


def test_an_expanded_model_is_not_expanded_again(race: Path, tmp_path: Path) -> None:
    text = race.read_text()
    again = text.replace("  - {kind: merge-back, from: cpt-control-llm}\n", "").replace(
        "  - {kind: quantize, from: cpt-control-llm, methods: [rtn], bits: [8], group_size: 32}\n",
        "  - {kind: cpt, name: again, from: cpt-llama-pro, methods: [llama-pro], llama_pro: {blocks: 1},\n"
        "     mixture: {new: 1.0}, tokens: 512, batch_size: 8, sequence_length: 64, learning_rate: 1e-2}\n",
    )
    path = tmp_path / "again.yaml"
    path.write_text(again)
    jobs = walk.make_jobs(recipe.load(path).recipe, Store(tmp_path / "store"))
    with pytest.raises(ModelError, match="expanded already"):
        forecast.forecast(jobs)
