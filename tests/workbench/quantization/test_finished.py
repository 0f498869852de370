"""A killed quantization goes on behind its last finished block, and ends as if nothing had happened."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from workbench import models, quantization
from workbench.quantization import METHODS, Report
from workbench.quantization.finished import Finished
from workbench.recipe.quantize import Quantize


@pytest.fixture
def calibration() -> list[Tensor]:
    return [torch.randint(320, (1, 32)) for _ in range(8)]


def run(
    model: PreTrainedModel, method: str, calibration: list[Tensor], unfinished: Path | None = None
) -> Report:
    section = {"kind": "quantize", "methods": [method], "bits": [3], "group_size": 32}
    stage = Quantize.model_validate(section | {"calibration": {"mixture": {"text": 1}}})
    return quantization.quantize(model, stage, method, 3, calibration, "test", unfinished=unfinished)


class Killed(BaseException):
    """Stands for a process that ends."""


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "smoothquant", "quip"])
def test_goes_on_where_it_stopped(
    tiny_model_folder: Path,
    calibration: list[Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    model = models.load(tiny_model_folder)
    original, whole = METHODS[method], copy.deepcopy(model)
    expected = run(whole, method, calibration)
    quantized: list[int] = []

    def counted(weights: list[Tensor], *rest: Any) -> Any:
        quantized.append(len(weights))
        if len(quantized) == 5:  # the first subset of the second block
            raise Killed
        return original.quantize(weights, *rest)

    monkeypatch.setitem(METHODS, method, replace(original, quantize=counted))
    with pytest.raises(Killed):
        run(copy.deepcopy(model), method, calibration, tmp_path)
    lines = (tmp_path / "layers.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [layer.name for layer in expected.layers[:7]]
    report = run(model, method, calibration, tmp_path)
    assert len(quantized) == 5 + 4  # the first block was not quantized again
    assert report == expected
    assert len((tmp_path / "layers.jsonl").read_text().splitlines()) == 14
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    with torch.no_grad():
        assert torch.equal(model(calibration[0]).logits, whole(calibration[0]).logits)
    quantization.discard_blocks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["layers.jsonl"]


def test_a_block_that_was_not_written_whole_does_not_count(
    tiny_model_folder: Path, calibration: list[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise Killed

    monkeypatch.setattr("workbench.quantization.finished.os.replace", killed)
    with pytest.raises(Killed):
        run(models.load(tiny_model_folder), "rtn", calibration, tmp_path)
    block = models.blocks(models.load(tiny_model_folder))[0]
    assert Finished(tmp_path).load(0, block, None) is None


def test_without_a_folder_nothing_is_kept(tiny_model_folder: Path) -> None:
    block = models.blocks(models.load(tiny_model_folder))[0]
    nowhere = Finished(None)
    nowhere.save(0, block, [])
    assert nowhere.load(0, block, None) is None
