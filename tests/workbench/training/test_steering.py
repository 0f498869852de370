"""A controller in the loop: what it changes, and that neither a stop nor other processes change it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workbench.errors import RunError
from workbench.recipe.schema import Engine
from workbench.training import launch

TOPICS = {"kind": "topics", "every": 2, "texts": {"short": "x", "long": "y"}, "floor": 0.05}
BANDIT = {"kind": "bandit", "every": 2}


def told(toy: SimpleNamespace, out: Path) -> tuple[list[Any], list[Any]]:
    """Changes of the mixture, and what the batches of the steps were."""
    rows = toy.rows(out)
    changes = [(row["step"], row["curriculum"]) for row in rows if "curriculum" in row]
    keys = ("step", "batch", "sources", "weights")
    return changes, [[row[key] for key in keys] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def steered(toy: SimpleNamespace, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an undisturbed run under a topic controller."""
    out: Path = tmp_path_factory.mktemp("steered")
    toy.run(tokens, out, stage={"curriculum": TOPICS})
    return out


def test_weights_follow_what_was_measured(toy: SimpleNamespace, steered: Path) -> None:
    changes, batches = told(toy, steered)
    assert [step for step, _ in changes] == [0, 2, 4]
    assert changes[0][1]["weights"] == toy.SOURCES and "factors" not in changes[0][1]
    for (_, before), (step, now) in pairwise(changes):
        difference = {name: now["measured"][name] - before["measured"][name] for name in toy.SOURCES}
        assert now["differences"] == pytest.approx(difference)
        assert batches[step][3] == pytest.approx(now["weights"])
    assert changes[1][1]["weights"] != toy.SOURCES


def test_the_history_replays_the_run(toy: SimpleNamespace, tokens: Path, steered: Path) -> None:
    mixture = toy.make_mixture(tokens)
    changes, batches = told(toy, steered)
    for step, change in changes:
        mixture.reweigh(step, change["weights"])
    assert [mixture.drawn(step) for step in range(toy.STEPS)] == [batch[2] for batch in batches]


def test_a_bandit_counts_the_losses_since_its_last_update(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path
) -> None:
    toy.run(tokens, tmp_path, stage={"curriculum": BANDIT})
    changes, _ = told(toy, tmp_path)
    assert [step for step, _ in changes] == [2, 4]
    losses = [row["source_losses"] for row in toy.rows(tmp_path) if "loss" in row]
    for name, measured in changes[1][1]["measured"].items():
        low, high = sorted(loss[name] for loss in losses[2:4])
        assert low - 1e-4 <= measured <= high + 1e-4


@pytest.mark.parametrize("curriculum", [TOPICS, BANDIT], ids=["topics", "bandit"])
def test_a_stop_between_two_measurements_changes_nothing(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path, curriculum: dict[str, Any]
) -> None:
    stage = {"curriculum": curriculum | {"every": 3}, "checkpoint_every": 1}
    toy.run(tokens, tmp_path / "whole", stage=stage)
    for at in (2, 1, 2):  # probes since the last try began; each try first goes on from its last checkpoint

        def stop(done: int, at: int = at) -> None:
            if done == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            toy.run(tokens, tmp_path / "parts", stage=stage, at_step=stop)
    toy.run(tokens, tmp_path / "parts", stage=stage)
    assert told(toy, tmp_path / "parts") == told(toy, tmp_path / "whole")


def test_one_process_then_two_then_one_draw_the_same(
    toy: SimpleNamespace, tokens: Path, steered: Path, tmp_path: Path
) -> None:
    settings = {"folder": str(tokens), "out": str(tmp_path / "out"), "stage": {"curriculum": TOPICS}}

    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(tokens, tmp_path / "out", stage=settings["stage"], at_step=stop)
    (tmp_path / "two.json").write_text(json.dumps([{**settings, "kill_at": 2}]))  # at step 5, after that of 4
    with pytest.raises(RunError, match="2 processes ended"):
        launch([str(toy.path), str(tmp_path / "two.json")], Engine(processes=2))
    assert (tmp_path / "out" / "checkpoints" / "step-000000004").is_dir()
    toy.run(tokens, tmp_path / "out", stage=settings["stage"])
    assert told(toy, tmp_path / "out") == told(toy, steered)


def test_a_dry_source_ends_the_training_with_a_sentence(
    toy: SimpleNamespace, tokens: Path, tmp_path: Path
) -> None:
    from workbench import data, training
    from workbench.recipe.curricula import Reading

    files = {name: data.TokenFile(tokens / name) for name in toy.SOURCES}
    reading = {"short": Reading(epochs=12 / files["short"].windows(toy.LENGTH) + 1e-9)}
    mixture = data.Mixture(files, toy.SOURCES, 3, toy.BATCH, toy.LENGTH, reading=reading, when_dry="stop")
    stage = toy.make_stage(probe_every=None)
    result = training.train(toy.make_model(), mixture, stage, Engine(), 1, tmp_path, title="dry")
    assert result.steps == 3 and result.tokens == 3 * toy.BATCH * toy.LENGTH
    assert result.stopped == (
        "training ended at step 3 of 6, for sources are dry: short has 0 of 12 samples left, too few for "
        "another batch of 8"
    )
