"""Triplets of a stage: only unsafe answers are rejected, a stopped making goes on, and nothing leaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workbench import miniworld, models, recipe, safety, storage
from workbench.data.synthetic import Written
from workbench.errors import DataError
from workbench.evaluation import answers
from workbench.evaluation.answers import Asked, Generation
from workbench.recipe.inputs import NewModel
from workbench.safety import Request, requests
from workbench.safety.codes import to_morse
from workbench.stages import load, triplets, writers
from workbench.stages.job import Job, jobs_by_name
from workbench.storage import Store

RECIPE = """\
name: tiny
description: triplets
seed: 1
model: {{path: {folder}}}
data: {{harmless: {{miniworld: harmless}}}}
stages:
  - kind: safety
    methods: [dpo]
    triplets: {{requests: miniworld, judge: {{kind: miniworld}}, max_new_tokens: 8{more}}}
    sizes: [5, 20, 100000]
    mixture: {{harmless: 1.0}}
    tokens: 1e4
    batch_size: 4
    sequence_length: 64
    learning_rate: 1e-3
{evaluate}
"""
SIZES = {"hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1, "kv_heads": 1}
PLAIN = {"context": 512, "vocab_size": 320, "tokenizer_sources": ("a",)}
Answer = Callable[[Request], str]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a chat template."""
    folder = tmp_path_factory.mktemp("target")
    tokenizer = models.train_tokenizer([attack.prompt for attack in miniworld.attacks(1)], 320)
    models.save(models.new(NewModel.model_validate({**SIZES, **PLAIN}), 0), tokenizer, folder, {})
    return folder


@pytest.fixture
def jobs(target: Path, tmp_path: Path) -> Callable[..., list[Job]]:
    """The jobs of a safety stage by size, over a target that lies in the store."""

    def made(more: str = "", evaluate: str = "") -> list[Job]:
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(folder=target, more=more, evaluate=evaluate))
        by_name = jobs_by_name(recipe.load(path).recipe, Store(tmp_path / "store"))
        base = by_name["base"]
        base.store.make(base.fingerprint, lambda out: load.build(base, out))
        return [job for job in by_name.values() if job.variant.triplets]

    return made


def answering(monkeypatch: pytest.MonkeyPatch, say: Answer) -> list[int]:
    """Let the target say something else; gives how many requests each call of it had."""
    by_prompt = {row.prompt: row for part in safety.divided("miniworld", 1).values() for row in part}
    calls: list[int] = []

    def generate(model: Any, tokenizer: Any, asked: Sequence[Asked], **_: Any) -> list[Generation]:
        calls.append(len(asked))
        return [Generation(say(by_prompt[each.prompt]), True) for each in asked]

    monkeypatch.setattr(answers, "generate", generate)
    return calls


def mixed(row: Request) -> str:
    """Unsafe, safe, or nothing, by the length of the target's name."""
    assert row.answer and row.refusal
    return (row.answer, row.refusal, " ")[len(row.base_id) % 3]


def test_unsafe_answers_are_rejected_and_the_rest_is_counted(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, mixed)
    small, middle, _ = jobs()
    folder = triplets.make(small)
    asked = {row.id: row for row in safety.divided("miniworld", 1)["train"] if row.harmful}
    whole = triplets.read(replace(small, variant=replace(small.variant, triplets=None)))
    said = {name: mixed(row) for name, row in asked.items()}
    assert {each.id for each in whole} == {name for name, row in asked.items() if said[name] == row.answer}
    for each in whole:
        row = asked[each.id]
        assert (each.prompt, each.chosen, each.rejected) == (row.prompt, row.refusal, row.answer)
        assert (each.chosen_source, each.rejected_judge, each.split) == ("miniworld", "miniworld", "train")
    counts = storage.read_json(folder / "triplets.json")
    assert counts["prompts"] == len(asked) == counts["triplets"] + sum(counts["none"].values())
    assert counts["none"]["safe"] == sum(said[name] == row.refusal for name, row in asked.items())
    assert counts["none"]["empty"] == list(said.values()).count(" ")
    assert triplets.read(small) == triplets.read(middle)[:5] == whole[:5]
    assert [each.id for each in whole] != [name for name in asked if name in {t.id for t in whole}]


def test_no_more_is_asked_than_the_largest_size_needs_and_smaller_ones_are_its_beginning(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triplets, "CHUNK", 48)
    calls = answering(monkeypatch, mixed)
    large = jobs()[-1]
    whole = triplets.read(replace(large, variant=replace(large.variant, triplets=None)))
    total = sum(calls)
    monkeypatch.setitem(globals(), "RECIPE", RECIPE.replace("[5, 20, 100000]", "[5, 20]"))
    calls.clear()
    small, middle = jobs()
    assert small.triplets_fingerprint == middle.triplets_fingerprint
    assert triplets.read(small) == triplets.read(middle)[:5] and triplets.read(middle) == whole[:20]
    counts = storage.read_json(triplets.make(small) / "triplets.json")
    assert 20 <= counts["triplets"] < len(whole)
    assert sum(calls) == counts["prompts"] < total and counts["prompts"] % 48 == 0


def test_replies_of_a_writer_that_went_on_are_those_of_one_making(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triplets, "CHUNK", 8)
    monkeypatch.setitem(globals(), "RECIPE", RECIPE.replace("[5, 20, 100000]", "[20]"))
    answering(monkeypatch, mixed)
    asked: list[str] = []

    def write(prompts: list[str], seed: int) -> list[Written]:
        asked.extend(prompts)
        return [Written(f"No, not {text}", True) for text in prompts]

    monkeypatch.setattr(writers, "of", lambda *_: write)
    (job,) = jobs(more=", chosen: {endpoint: 'http://localhost:1', model: w}")
    bare = {row.id: row.bare for row in safety.divided("miniworld", 1)["train"]}
    made = triplets.read(job)
    assert len(made) == 20 and {each.chosen for each in made} == {f"No, not {bare[each.id]}" for each in made}
    assert len(asked) == len(set(asked))  # nobody is asked twice about one request


def test_an_answer_in_code_is_judged_by_what_it_says_and_rejected_as_it_stands(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = safety.divided("miniworld", 1)
    coded = {**rows, "train": [replace(row, style="morse") for row in rows["train"] if row.harmful]}
    monkeypatch.setattr(safety, "divided", lambda *_: coded)
    answering(monkeypatch, lambda row: to_morse(row.answer or ""))
    made = triplets.read(jobs()[0])
    assert len(made) == 5 and all(set(each.rejected) & set(".-") and each.style == "morse" for each in made)


def test_all_sizes_share_them_and_too_many_are_an_error(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = answering(monkeypatch, mixed)
    small, middle, large = jobs()
    assert len(triplets.read(small)) == 5 and len(triplets.read(middle)) == 20
    assert sum(calls) == storage.read_json(triplets.make(small) / "triplets.json")["prompts"]
    with pytest.raises(
        DataError, match=r"safety-dpo-n100000: sizes asks for 100000 triplets, but the target"
    ):
        triplets.read(large)


def test_a_making_that_was_stopped_goes_on_at_its_batch(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triplets, "CHUNK", 40)
    calls = answering(monkeypatch, mixed)
    (job, *_) = jobs()
    judge, judged = triplets.judge_generations, []

    def stopped(guard: Any, asked: Sequence[str], said: Sequence[str]) -> Any:
        judged.append(len(asked))
        if len(judged) == 3:
            raise KeyboardInterrupt
        return judge(guard, asked, said)

    monkeypatch.setattr(triplets, "judge_generations", stopped)
    with pytest.raises(KeyboardInterrupt):
        triplets.make(job)
    answered = sum(calls)
    first = triplets.make(job)
    total = storage.read_json(first / "triplets.json")["prompts"]
    assert sum(calls) == answered == total and max(calls) == 40
    assert sum(judged[:2]) == 80 and sum(judged[3:]) >= total - 80  # the rest, and the replies


def test_a_model_in_this_process_answers(jobs: Callable[..., list[Job]]) -> None:
    """A random one says nothing that its judge calls unsafe, and the error says why there is nothing."""
    (job, *_) = jobs()
    with pytest.raises(
        DataError, match=r"no triplet for base: of (\d+) answers \1 are (safe already|empty); there"
    ):
        triplets.make(job)


def test_requests_that_the_evaluation_asks_are_refused(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, *_) = jobs(evaluate="evaluate: {battery: miniworld-safety}")
    stage: Any = job.variant.stage
    assert triplets.prompts(stage.triplets, job.recipe)
    rows = safety.divided("miniworld", 1)
    leaked = {**rows, "evaluation": [*rows["evaluation"], rows["train"][0]]}
    monkeypatch.setattr(safety, "divided", lambda *_: leaked)
    with pytest.raises(DataError, match=rf"asked by evaluation sets: '.*{rows['train'][0].base_id}/"):
        triplets.prompts(stage.triplets, job.recipe)


def test_a_writer_may_refuse_and_its_reply_must_be_safe(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda row: row.answer or "")
    (job, *_) = jobs(more=", chosen: {endpoint: 'http://localhost:1', model: w}")
    told = {row.bare: row.answer for row in safety.divided("miniworld", 1)["train"]}
    asked: list[str] = []

    def write(prompts: list[str], seed: int) -> list[Written]:
        asked.extend(prompts)
        return [Written("No." if len(text) % 2 else told[text], True) for text in prompts]

    monkeypatch.setattr(writers, "of", lambda *_: write)
    made = triplets.make(job)
    assert len(asked) == len(set(asked)) and set(asked) <= set(told)
    rows = [json.loads(line) for line in (made / "triplets.jsonl").read_text().splitlines()]
    assert {(row["chosen"], row["chosen_source"]) for row in rows} == {("No.", "w")}
    counts = storage.read_json(made / "triplets.json")
    assert counts["none"]["unanswered"] == counts["prompts"] - len(rows) > 0


def test_a_set_without_refusals_needs_a_writer_and_long_requests_are_named(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(requests, "FOLDER", tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"ask": "How do I lift the moon?"}\n')
    origin = {"path": str(tmp_path / "rows.jsonl"), "columns": {"request": "ask"}}
    doors = {"description": "d", "harmful": origin, "held_out": 0}
    (tmp_path / "miniworld.yaml").write_text(json.dumps(doors))
    (job, *_) = jobs()
    with pytest.raises(DataError, match=r"miniworld come without a refusal, harmful/1/plain is the first"):
        triplets.make(job)
    (job, *_) = jobs(more=", chosen: {endpoint: 'http://localhost:1', model: w}")
    tokens = "x" * 600
    (tmp_path / "rows.jsonl").write_text(json.dumps({"ask": tokens}))
    with pytest.raises(DataError, match=r"requests have more than the 504 tokens .* harmful/1/"):
        triplets.make(job)
    (tmp_path / "miniworld.yaml").write_text(json.dumps({**doors, "held_out": 1}))
    with pytest.raises(DataError, match="no harmful request that may train"):
        triplets.make(job)
