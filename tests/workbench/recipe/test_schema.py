from typing import Any

import pytest
from pydantic import ValidationError

from workbench.recipe.inputs import Source
from workbench.recipe.methods import Replay
from workbench.recipe.quantization import Calibration
from workbench.recipe.quantize import Quantize
from workbench.recipe.training import Cpt, Schedule

TRAINING: dict[str, Any] = {
    "kind": "cpt",
    "mixture": {"a": 1.0},
    "tokens": 1e6,
    "batch_size": 16,
    "sequence_length": 100,
    "learning_rate": 1e-3,
}


def test_steps_are_whole_batches() -> None:
    stage = Cpt(**TRAINING)
    assert stage.steps == 625 and isinstance(stage.tokens, int)
    assert Cpt(**TRAINING | {"tokens": 1_001_599}).steps == 625


@pytest.mark.parametrize("mixture", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 0.5, "b": 0.6}])
def test_weights_of_every_mixture_sum_to_one(mixture: dict[str, float]) -> None:
    for make in (
        lambda: Cpt(**TRAINING | {"mixture": mixture}),
        lambda: Replay(ratio=0.5, mixture=mixture),
        lambda: Calibration(mixture=mixture),
    ):
        with pytest.raises(ValidationError, match="sum to 1"):
            make()


def test_weights_may_be_rounded() -> None:
    assert Replay(ratio=0.5, mixture={"a": 0.3333333, "b": 0.3333333, "c": 0.3333334}).ratio == 0.5


def test_methods_need_their_settings() -> None:
    with pytest.raises(ValidationError, match="needs the section replay"):
        Cpt(**TRAINING, methods=["replay"])
    with pytest.raises(ValidationError, match="gptq needs calibration"):
        Quantize(kind="quantize", methods=["gptq"], bits=[4])
    assert Quantize(kind="quantize", methods=["rtn"], bits=[4]).calibration is None


def test_ranges_of_documents() -> None:
    assert Source(path="a.txt", documents=(0, 10)).documents == (0, 10)
    for empty in ((3, 3), (4, 3)):
        with pytest.raises(ValidationError, match="not a range"):
            Source(path="a.txt", documents=empty)


def test_warmup_and_decay_fit_into_one_stage() -> None:
    assert Schedule(kind="wsd", warmup=0.5, decay=0.5).decay == 0.5
    with pytest.raises(ValidationError, match="at most 1 together"):
        Schedule(kind="wsd", warmup=0.6, decay=0.5)


def test_settings_do_not_change_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Schedule().warmup = 0.5  # type: ignore[misc]
