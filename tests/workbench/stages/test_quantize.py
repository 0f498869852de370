"""The quantize stage in the store: killed and started again, it makes what it makes in one go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from workbench import models
from workbench.errors import RecipeError
from workbench.quantization import allocation
from workbench.quantization.finished import Finished
from workbench.recipe.schema import Recipe
from workbench.run.forecast import forecast
from workbench.run.walk import BUILDERS, RESUMABLE
from workbench.stages.job import Job, jobs_by_name
from workbench.stages.result import StageResult
from workbench.storage import Store

TEXT = "The river runs past the old mill and under the stone bridge.\n\n" * 200


class Killed(BaseException):
    """Stands for a process that ends."""


def make(job: Job) -> Path:
    if job.parent:
        make(job.parent)
    kind = job.variant.kind
    return job.store.make(job.fingerprint, lambda out: BUILDERS[kind](job, out), resumable=kind in RESUMABLE)


@pytest.fixture
def recipe(tiny_model_folder: Path, tmp_path: Path) -> Recipe:
    (tmp_path / "text.txt").write_text(TEXT)
    calibration = {"mixture": {"text": 1}, "sequences": 4, "sequence_length": 32}
    stages = [
        {
            "kind": "quantize",
            "name": "a",
            "from": "base",
            "methods": ["rtn"],
            "bits": [4],
            "groups": [16, 32],
        },
        {"kind": "quantize", "name": "b", "from": "base", "methods": ["pb-llm"], "bits": [1.7]},
        {"kind": "quantize", "name": "c", "from": "base", "methods": ["smoothquant"], "bits": [8]},
        {
            "kind": "quantize",
            "name": "d",
            "from": "base",
            "methods": ["rtn", "gptq"],
            "bits": [3.5, 4],
            "groups": [16, "channel"],
            "allocation": {"widths": [2, 4, 8], "sequences": 2},
            "calibration": calibration,
        },
    ]
    return Recipe.model_validate(
        {
            "name": "stage",
            "description": "d",
            "model": {"path": str(tiny_model_folder)},
            "data": {"text": {"path": str(tmp_path / "text.txt")}},
            "stages": [
                stage
                | ({"calibration": calibration, "group_size": 32} if stage["name"] == "b" else {})
                | ({"calibration": calibration} if stage["name"] == "c" else {})
                for stage in stages
            ],
        }
    )


@pytest.mark.parametrize(
    "name", ["a-rtn-w4-g16", "b-pb-llm-w1.7", "c-smoothquant-w8", "d-gptq-w3.5-channel-mixed"]
)
def test_killed_and_started_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = make(jobs_by_name(recipe, Store(tmp_path / "whole"))[name])
    job = jobs_by_name(recipe, Store(tmp_path / "cut"))[name]
    save = Finished.save

    def killed(self: Finished, index: int, *rest: Any) -> None:
        save(self, index, *rest)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Finished, "save", killed)
        for _ in range(2):  # a block is finished each time
            with pytest.raises(Killed):
                make(job)
    cut = make(job)
    expected, got = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert expected.keys() == got.keys() and all(expected[key].equal(got[key]) for key in expected)
    names = {path.name for path in cut.iterdir()}
    assert names == {"model", "result.json", "layers.jsonl", "MANIFEST.json"}
    assert (cut / "layers.jsonl").read_text() == (whole / "layers.jsonl").read_text()
    assert StageResult.read(cut).details == StageResult.read(whole).details


def test_groups_are_variants_of_their_own(recipe: Recipe, tmp_path: Path) -> None:
    jobs = jobs_by_name(recipe, Store(tmp_path / "store"))
    real = {name: StageResult.read(make(jobs[name])).real_bits for name in ("a-rtn-w4-g16", "a-rtn-w4-g32")}
    assert (real["a-rtn-w4-g16"] or 0) > (real["a-rtn-w4-g32"] or 0) > 4
    assert StageResult.read(make(jobs["b-pb-llm-w1.7"])).nominal_bits == 1.7


def test_a_budget_is_kept_and_its_sensitivities_are_measured_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, measured = jobs_by_name(recipe, Store(tmp_path / "store")), []
    sensitivities = allocation.sensitivities

    def counting(*args: Any, **kwargs: Any) -> Any:
        measured.append(args)
        return sensitivities(*args, **kwargs)

    monkeypatch.setattr(allocation, "sensitivities", counting)
    for method, bits in (("rtn", 3.5), ("gptq", 3.5), ("gptq", 4)):
        folder = make(jobs[f"d-{method}-w{bits:g}-channel-mixed"])
        result = StageResult.read(folder)
        allotted = result.details["allocation"]
        assert 3 < (result.nominal_bits or 0) < (result.real_bits or 9) <= bits
        assert len({own["bits"] for own in allotted.values()}) > 1
        told = [json.loads(line) for line in (folder / "layers.jsonl").read_text().splitlines()]
        for layer in told:
            own = allotted[layer["name"]]
            assert layer["diagnostics"]["width"] == own["bits"]
            assert layer["diagnostics"]["divergence"] == own["divergences"][str(own["bits"])]
        model = models.load(folder / "model")
        assert [model.get_submodule(layer["name"]).layout["bits"] for layer in told] == [
            own["bits"] for own in allotted.values()
        ]
    assert len(measured) == 1
    make(jobs["d-gptq-w4-g16-mixed"])
    assert len(measured) == 2  # other grids are other sensitivities


def test_an_impossible_budget_is_refused_before_any_work(recipe: Recipe, tmp_path: Path) -> None:
    raw = recipe.model_dump(by_alias=True)
    raw["stages"][3] |= {"bits": [2.5], "groups": [16]}
    jobs = jobs_by_name(Recipe.model_validate(raw), Store(tmp_path / "store"))
    with pytest.raises(RecipeError, match=r"rtn within 2\.5 real bits .* take at least 3\.125"):
        forecast([jobs["d-rtn-w2.5-g16-mixed"]])


def test_one_block_at_a_time_is_in_memory(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a block is brought, of those before it only norms are left, beside what is packed."""
    job, held = jobs_by_name(recipe, Store(tmp_path / "store"))["a-rtn-w4-g32"], []
    stream = models.stream

    def watched(*args: Any) -> Any:
        model, fill = stream(*args)

        def filled(block: str) -> None:
            fill(block)
            held.append(sum(p.nbytes for p in model.parameters() if p.device.type != "meta"))

        return model, filled

    monkeypatch.setattr(models, "stream", watched)
    make(job)
    whole = models.load(recipe_folder(recipe))
    block = sum(parameter.nbytes for parameter in models.blocks(whole)[0].parameters())
    outside = sum(parameter.nbytes for parameter in whole.parameters()) - 2 * block
    norms = 2 * 64 * 4
    assert held == [outside + block, outside + norms + block]


def recipe_folder(recipe: Recipe) -> Path:
    assert recipe.model.path
    return Path(recipe.model.path)
