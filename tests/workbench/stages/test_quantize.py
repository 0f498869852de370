"""The quantize stage in the store: killed and started again, it makes what it makes in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from workbench.quantization.finished import Finished
from workbench.recipe.schema import Recipe
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


@pytest.mark.parametrize("name", ["a-rtn-w4-g16", "b-pb-llm-w1.7", "c-smoothquant-w8"])
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
