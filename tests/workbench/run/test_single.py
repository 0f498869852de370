"""One folder evaluated or exported, two runs compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from workbench import models, quantization
from workbench.errors import RunError
from workbench.evaluation.measurement import Measurement, write
from workbench.recipe import variants
from workbench.recipe.quantize import Quantize
from workbench.run.single import compare_runs, evaluation_recipe, export_dense


@pytest.fixture(scope="module")
def quantized_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    model = models.load(tiny_model_folder)
    quantization.quantize(
        model, Quantize(kind="quantize", methods=["rtn"], bits=[3], group_size=32), "rtn", 3, None, ""
    )
    models.save(model, models.load_tokenizer(tiny_model_folder), folder, {})
    return folder


def test_a_dense_export_gives_the_same_logits_to_a_process_that_knows_nothing_of_us(
    quantized_folder: Path, tmp_path: Path, stranger: Callable[..., None]
) -> None:
    to = export_dense(quantized_folder, tmp_path / "dense")
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        ours = models.load(quantized_folder)(tokens).logits
        theirs = AutoModelForCausalLM.from_pretrained(to)(tokens).logits
    assert torch.equal(ours, theirs)
    code = "import sys; from transformers import AutoModelForCausalLM as A; A.from_pretrained(sys.argv[1]); "
    code += "assert not any(name.startswith('workbench') for name in sys.modules)"
    stranger(code, to)


def test_an_export_never_overwrites(quantized_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exists already"):
        export_dense(quantized_folder, tmp_path)


def test_evaluating_a_folder_is_a_recipe_without_stages(tiny_model_folder: Path) -> None:
    loaded = evaluation_recipe(tiny_model_folder, "miniworld", 4)
    assert [variant.name for variant in variants(loaded.recipe)] == ["base"]
    assert loaded.recipe.name.startswith("eval/miniworld/")


def accuracy(right: int) -> Measurement:
    items = {str(i): (float(i < right), 1.0) for i in range(100)}
    return Measurement("new", "facts", "acc", items, "mean", True, "same", 0.25)


def test_two_runs_are_compared_item_by_item(tmp_path: Path) -> None:
    for run, right in (("a", 40), ("b", 90)):
        folder = tmp_path / run / "evals" / "base"
        folder.mkdir(parents=True)
        write(folder / "new.facts.json", [accuracy(right)])
    table = compare_runs(tmp_path / "a", tmp_path / "b")
    (sentence,) = table.columns[1].cells
    assert "better" in sentence and "90" in sentence
    with pytest.raises(RunError, match="no evaluated rows"):
        compare_runs(tmp_path / "a", tmp_path / "nothing")
