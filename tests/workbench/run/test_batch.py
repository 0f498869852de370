"""Every batch of a run can be rebuilt from its folder, and schedules go on from the parent's last rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import recipe
from workbench.errors import RunError
from workbench.run import batch, walk
from workbench.training import log

STAGES = """\
stages:
  - {kind: pretrain, mixture: {old: 1}, tokens: 4096, batch_size: 8, sequence_length: 64, learning_rate: 1e-2}
  - kind: cpt
    methods: [replay]
    mixture: {people: 0.5, places: 0.5}
    curriculum: {kind: topics, every: 2, windows: 2, texts: {people: people-unseen, places: places-unseen}}
    schedule: {start: last, warmup: 0.5}
    replay: {ratio: 0.25, mixture: {old: 1.0}}
    tokens: 3072
    batch_size: 8
    sequence_length: 64
    learning_rate: 2e-2
  - kind: cpt
    name: lines
    from: base
    methods: [full, replay]
    mixture: {people: 1.0, places: 0.0}
    curriculum: {kind: linear, points: [{tokens: 2048, mixture: {places: 1.0}}]}
    reading: {people: {tokens: 1280, epochs: 0.7}}
    when_dry: redistribute
    replay: {ratio: 0.25, mixture: {old: 1.0}}
    tokens: 3072
    batch_size: 8
    sequence_length: 64
    learning_rate: 1e-2
"""
DATA = """\
data:
  people: {miniworld: new, topic: people, documents: [0, 200]}
  places: {miniworld: new, topic: places, documents: [0, 200]}
  people-unseen: {miniworld: new_heldout, topic: people}
  places-unseen: {miniworld: new_heldout, topic: places}
"""


@pytest.fixture(scope="module")
def run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with curricula."""
    text = tiny_recipe.read_text().split("stages:")[0].replace("data:\n", DATA) + STAGES
    folder = tmp_path_factory.mktemp("curricula")
    (folder / "r.yaml").write_text(text)
    walk.run(recipe.load(folder / "r.yaml"), folder / "runs", "make recipe=r")
    return folder / "runs" / "tiny"


@pytest.mark.parametrize("variant", ["base", "cpt-replay", "lines-full", "lines-replay"])
def test_every_batch_is_the_one_that_was_trained_on(run: Path, variant: str) -> None:
    steps = 8 if variant == "base" else 6
    for step in range(1, steps + 1):
        rebuilt = batch.rebuild(run, step, variant)
        assert rebuilt.digest == rebuilt.logged and len(rebuilt.lines) == 8
        assert "the one that the training logged" in rebuilt.verdict
    points = log.read(next(run.glob(f"stages/*-{variant}")) / "metrics.jsonl")
    drawn = next(point["sources"] for point in points if point.get("batch") == rebuilt.logged)
    assert {name: count for name, count in drawn.items() if count} == {
        name: [line.source for line in rebuilt.lines].count(name)
        for name in {li.source for li in rebuilt.lines}
    }


def test_a_line_says_where_its_text_stands(run: Path) -> None:
    from workbench.data import TokenFile

    request = json.loads((next(run.glob("stages/*-cpt-replay")) / "request.json").read_text())
    for line in batch.rebuild(run, 4, "cpt-replay").lines:
        file, (first, last) = TokenFile(Path(request["tokens"][line.source])), line.documents
        start = line.window * 64
        assert file.starts[first] <= start < file.starts[first + 1]
        assert file.starts[last] < start + 64 <= file.starts[last + 1]
        assert line.text and line.epoch >= 1
    assert batch.table(batch.rebuild(run, 4, "cpt-replay")).row_count == 8


def test_other_text_than_that_of_the_training_is_told(run: Path) -> None:
    changed = batch.Rebuilt("base", [], "aa", "bb")
    assert "the training logged bb" in changed.verdict


@pytest.mark.parametrize(
    ("step", "variant", "said"),
    [
        (
            1,
            None,
            "4 trainings; name one with --variant; there are: base, cpt-replay, lines-full, lines-replay",
        ),
        (1, "cpt", 'no training "cpt"; there are: base'),
        (7, "cpt-replay", "step 7: the training cpt-replay has steps 1 to 6"),
        (0, "base", "step 0: the training base has steps 1 to 8"),
    ],
)
def test_what_there_is_not_is_told(run: Path, step: int, variant: str | None, said: str) -> None:
    with pytest.raises(RunError, match=said):
        batch.rebuild(run, step, variant)


def test_a_folder_without_trainings_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no training of this version has begun here"):
        batch.rebuild(tmp_path, 1)


def test_the_rate_goes_on_from_where_the_parent_ended(run: Path) -> None:
    def rates(variant: str) -> list[float]:
        points = log.read(next(run.glob(f"stages/*-{variant}")) / "metrics.jsonl")
        return [point["learning_rate"] for point in points if "loss" in point]

    last, first = rates("base")[-1], rates("cpt-replay")
    assert first[:3] == pytest.approx([last + (2e-2 - last) * (i + 1) / 3 for i in range(3)])


def test_replay_keeps_its_share_on_a_line_and_a_dry_source_is_told(run: Path) -> None:
    folder = next(run.glob("stages/*-lines-replay"))
    points = [point for point in log.read(folder / "metrics.jsonl") if "weights" in point]
    assert points[1]["weights"] == pytest.approx({"people": 0.5625, "places": 0.1875, "old": 0.25})
    dry = json.loads((next(run.glob("stages/*-lines-full")) / "result.json").read_text())["details"]["dry"]
    assert list(dry) == ["people"]
