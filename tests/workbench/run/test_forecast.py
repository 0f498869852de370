"""A forecast counts what it can count exactly, and the impossible is refused before it is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import recipe
from workbench.errors import ModelError, RunError
from workbench.recipe.schema import Engine
from workbench.recipe.training import Cpt
from workbench.run import forecast, walk
from workbench.storage import Store

RECIPES = Path(__file__).parents[3] / "recipes"


def forecasts(name: str, tmp_path: Path, *overrides: str) -> dict[str, forecast.Forecast]:
    jobs = walk.make_jobs(recipe.load(RECIPES / f"{name}.yaml", overrides).recipe, Store(tmp_path / ".store"))
    return {entry.variant: entry for entry in forecast.forecast(jobs)}


def test_llama3_8b_has_its_published_size_and_does_not_fit_a_small_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = forecasts("llama3-8b/cpt", tmp_path)
    assert planned["base"].parameters == 8_030_261_248
    assert planned["cpt-full"].tokens == 10**9 // (256 * 4096) * 256 * 4096
    monkeypatch.setattr(forecast, "_device_memory", lambda: (24 * 10**9, "a small machine"))
    with pytest.raises(RunError, match="a small machine has 24 GB"):
        forecast.refuse(list(planned.values()), tmp_path)


def test_llama3_8b_quantized_disk_is_near_the_published_arithmetic(tmp_path: Path) -> None:
    """W4g128 takes 5.7 GB in all, of which 2.1 GB are 16-bit embeddings and head."""
    assert forecasts("llama3-8b/quantize", tmp_path)["gptq-w4"].disk_bytes == pytest.approx(5.73e9, rel=0.01)


def test_zero_shards_the_state_as_its_paper_says() -> None:
    """In bfloat16, 16 bytes a parameter whole; on 8 processes 2 + 14 / 8 at stage 2, 16 / 8 at stage 3."""
    stage = Cpt(
        kind="cpt",
        mixture={"a": 1.0},
        tokens=8,
        batch_size=8,
        sequence_length=1,
        learning_rate=1,
        micro_batch_size=1,
    )
    config = forecast.configuration(recipe.load(RECIPES / "quickstart.yaml").recipe.model)

    def per_parameter(trainable: int) -> dict[int, float]:
        engines = {zero: Engine(zero_stage=zero, processes=8, precision="bfloat16") for zero in (0, 1, 2, 3)}
        return {
            zero: forecast.training_memory(10**12, trainable, config, stage, engine) / 10**12
            for zero, engine in engines.items()
        }

    assert per_parameter(0) == pytest.approx({0: 2.0, 1: 2.0, 2: 2.0, 3: 2 / 8}, rel=1e-6)
    assert per_parameter(10**12) == pytest.approx({0: 16.0, 1: 4 + 12 / 8, 2: 2 + 14 / 8, 3: 2.0}, rel=1e-6)


def test_a_group_size_that_does_not_divide_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"group_size 96 does not divide[\s\S]*in_features 64"):
        forecasts("quickstart", tmp_path, "stages.quantize.group_size=96")


def test_a_full_disk_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(RunError, match="free on that disk is 1 kB; make room"):
        forecast.refuse(list(forecasts("quickstart", tmp_path).values()), tmp_path / "not" / "there")
