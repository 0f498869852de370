"""Whatever is wrong with the input: exit code 2, one clear message, nothing half-written."""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench import cli, storage

RECIPE = """\
name: bad
description: a recipe to be broken
model: {{path: {model}}}
data:
  text: {{path: {text}}}
stages:
  - {{kind: quantize, methods: [gptq], bits: [4], group_size: {group_size},
     calibration: {{mixture: {{text: 1.0}}, sequences: 2, sequence_length: 16}}}}
"""


class Setting:
    """A recipe with its model and text, which a test damages before it runs."""

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.model, self.text, self.runs = folder / "model", folder / "text.txt", folder / "runs"
        shutil.copytree(model, self.model)
        self.text.write_text("A river runs under the old stone bridge.\n" * 20)
        self.recipe = folder / "bad.yaml"
        self.write()

    def write(self, group_size: object = 32) -> None:
        self.recipe.write_text(RECIPE.format(model=self.model, text=self.text, group_size=group_size))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and what was said."""
        with pytest.raises(SystemExit) as left:
            cli.main(["--runs", str(self.runs), "run", str(self.recipe), *arguments])
        said = self.capsys.readouterr()
        return int(left.value.code or 0), " ".join((said.out + said.err).split())

    def refuses(self, *parts: str) -> None:
        code, said = self.run()
        assert code == 2, said
        for part in parts:
            assert part in said, said
        assert "Traceback" not in said
        assert not list(self.runs.glob("*/sheet.*"))
        assert not list((self.runs / ".store").glob("*.partial"))

    def weights(self, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        """Change the tensors of the model's file."""
        path = self.model / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture
def setting(tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> Setting:
    return Setting(tmp_path, tiny_model_folder, capsys)


def test_the_untouched_setting_runs(setting: Setting) -> None:
    code, said = setting.run()
    assert code == 0, said
    assert (setting.runs / "bad" / "sheet.json").is_file()


def test_the_dtype_of_the_recipe_reaches_the_weights(setting: Setting) -> None:
    setting.recipe.write_text(setting.recipe.read_text().replace("model: {", "model: {dtype: bfloat16, "))
    code, said = setting.run()
    assert code == 0, said
    (written,) = setting.runs.glob("bad/stages/00-quantize-*/model/model.safetensors")
    assert load_file(written)["model.norm.weight"].dtype == torch.bfloat16


def test_misspelt_key(setting: Setting) -> None:
    setting.recipe.write_text(setting.recipe.read_text().replace("group_size", "group_sise"))
    setting.refuses("bad.yaml:7:", "stages[0].quantize.group_sise", "did you mean group_size")


def test_unknown_method(setting: Setting) -> None:
    setting.recipe.write_text(setting.recipe.read_text().replace("[gptq]", "[gptk]"))
    setting.refuses("bad.yaml:7:", "gptk", "rtn", "gptq")


def test_missing_recipe(setting: Setting) -> None:
    setting.recipe = setting.folder / "absent.yaml"
    setting.refuses("absent.yaml", "no such file")


def test_missing_text(setting: Setting) -> None:
    setting.text.unlink()
    setting.refuses("text.txt", "no such file or folder")


def test_not_a_model_folder(setting: Setting) -> None:
    (setting.model / "config.json").unlink()
    setting.refuses("has no config.json")


def test_corrupt_safetensors(setting: Setting) -> None:
    path = setting.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    setting.refuses("model.safetensors", "corrupt or cut short")


def test_pickled_weights(setting: Setting) -> None:
    (setting.model / "model.safetensors").rename(setting.model / "pytorch_model.bin")
    setting.refuses("pytorch_model.bin", "pickled weights are refused")


def test_a_tokenizer_of_another_model(setting: Setting) -> None:
    setting.weights(
        lambda tensors: tensors.update(
            {name: tensors[name][:300].clone() for name in ("model.embed_tokens.weight", "lm_head.weight")}
        )
    )
    config = setting.model / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 320', '"vocab_size": 300'))
    setting.refuses("the tokenizer does not match the model", "ids up to 319", "300 tokens")


def test_not_a_number_in_the_weights(setting: Setting) -> None:
    setting.weights(
        lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[7:8].fill_(torch.nan)
    )
    setting.refuses("model.layers.1.mlp.up_proj.weight", "NaN")


def test_empty_corpus(setting: Setting) -> None:
    setting.text.write_text("\n\n")
    setting.refuses("text.txt", "no documents")


def test_text_that_is_not_utf8(setting: Setting) -> None:
    setting.text.write_bytes("Zoë\n".encode("latin-1"))
    setting.refuses("text.txt:1", "not UTF-8")


def test_a_group_size_that_does_not_divide(setting: Setting) -> None:
    setting.write(group_size=96)
    setting.refuses(
        "group_size 96 does not divide", "in_features 64", "sizes that divide all are 2, 4, 8, 16, 32"
    )


def test_two_runs_in_one_folder(setting: Setting) -> None:
    with storage.locked(setting.runs / "bad" / "lock", "the run folder"):
        setting.refuses("is in use by process")


def test_a_read_only_run_folder(setting: Setting) -> None:
    run = setting.runs / "bad"
    run.mkdir(parents=True)
    run.chmod(0o555)
    setting.refuses("runs/bad is read-only")
    assert not list(run.iterdir())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    gc.collect()  # mapped files keep the disk busy
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_refused_before_the_run(setting: Setting, tiny_disk: Path) -> None:
    setting.runs = tiny_disk / "runs"
    (tiny_disk / "ballast").write_bytes(bytes(250_000))
    setting.refuses("free on that disk", "make room")


def test_a_disk_that_fills_up_during_the_run(
    setting: Setting, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.run.forecast.refuse", lambda *_: None)
    setting.runs = tiny_disk / "runs"
    (tiny_disk / "ballast").write_bytes(bytes(240_000))
    code, said = setting.run()
    assert code == 2 and "Traceback" not in said
    for part in ("block could not be written", "No space left", "make room", "goes on behind the last whole"):
        assert part in said
    assert not list(setting.runs.glob("*/sheet.*"))
    assert not list((setting.runs / ".store").rglob("block-*.partial"))


def test_overrides_switch_the_expected_ranges_off(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "hoped.yaml"
    recipe.write_text(
        f"name: hoped\ndescription: a range that is never met\nmodel: {{path: {tiny_model_folder}}}\n"
        "evaluate: {battery: miniworld}\nexpect: {base.retained.facts.acc: [1.0, 1.0]}\n"
    )
    for arguments, expected in ((("--set", "seed=2"), 0), ((), 3)):
        with pytest.raises(SystemExit) as left:
            cli.main(["--runs", str(tmp_path / "runs"), "run", str(recipe), *arguments])
        assert int(left.value.code or 0) == expected
        assert "missed: base.retained.facts.acc" in capsys.readouterr().err
