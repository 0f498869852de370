"""A fingerprint changes with whatever changes the result, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import recipe
from workbench.run.walk import make_jobs
from workbench.storage import Store

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"


def fingerprints(*overrides: str) -> dict[str, str]:
    jobs = make_jobs(recipe.load(QUICKSTART, overrides).recipe, Store(Path("store")))
    return {job.variant.name: job.fingerprint for job in jobs}


def changed(*overrides: str) -> set[str]:
    before, after = fingerprints(), fingerprints(*overrides)
    return {name for name in before if before[name] != after.get(name)}


BITS = (8, 4, 3, 2)
CALIBRATED = {f"{method}-w{bits}" for method in ("gptq", "awq") for bits in BITS}
QUANTIZED = {f"rtn-w{bits}" for bits in BITS} | CALIBRATED
SAFE = {"safety-dpo"}
MADE_OF_SAFE = QUANTIZED | {"rotated-quip-w2", "w8a8-smoothquant-w8"}
MADE_OF_REPLAY = SAFE | MADE_OF_SAFE
EVERYTHING = {"base", "cpt-full", "cpt-replay"} | MADE_OF_REPLAY


@pytest.mark.parametrize(
    ("override", "affected"),
    [
        ("seed=2", EVERYTHING),
        ("model.dtype=bfloat16", EVERYTHING),
        ("stages.base.learning_rate=1e-3", EVERYTHING),
        ("engine.precision=autocast", EVERYTHING),
        ("stages.cpt.replay.ratio=0.2", {"cpt-replay"} | MADE_OF_REPLAY),
        ("stages.cpt.methods=[replay]", {"cpt-full"}),
        ("stages.safety.share=0.4", MADE_OF_REPLAY),
        ("stages.safety.triplets.max_new_tokens=32", MADE_OF_REPLAY),
        ("stages.safety.derta.dropout=0.5", set()),
        ("stages.quantize.group_size=32", QUANTIZED),
        ("stages.quantize.gptq.damping=0.02", {f"gptq-w{bits}" for bits in BITS}),
        ("stages.quantize.calibration.sequences=64", CALIBRATED),
        ("stages.quantize.on_singular=rtn", CALIBRATED),
        ("stages.quantize.hqq.iterations=3", set()),
        ("stages.quantize.bits=[4]", QUANTIZED - {"rtn-w4", "gptq-w4", "awq-w4"}),
        ("description=other", set()),
        ("name=other", set()),
        ("stages.base.checkpoint_every=7", set()),
        ("stages.base.micro_batch_size=4", set()),
        ("engine={processes: 2, zero_stage: 3, activation_checkpointing: true}", set()),
        ("stages.cpt.lora.rank=4", set()),
    ],
)
def test_only_what_depends_on_a_setting_is_made_again(override: str, affected: set[str]) -> None:
    assert changed(override) == affected


def test_no_two_variants_share_a_fingerprint() -> None:
    assert len(set(fingerprints().values())) == len(EVERYTHING)


def test_a_changed_file_of_text_changes_what_is_trained_on_it(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    override = f"data.base={{path: {text}}}"
    text.write_text("one")
    before = fingerprints(override)
    text.write_text("two")
    assert before["base"] != fingerprints(override)["base"]
