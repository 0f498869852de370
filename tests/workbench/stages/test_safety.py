"""A row's answers are asked once, filtered where a guard stands before it, and judged into measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench import evaluation, miniworld, models, safety, storage
from workbench.errors import DataError
from workbench.evaluation import answers
from workbench.evaluation.battery import SafetyEntry
from workbench.recipe.inputs import Model
from workbench.recipe.safety import Grader, Guarded
from workbench.recipe.schema import Recipe
from workbench.safety.codes import to_base64
from workbench.safety.guards.protocol import Verdict
from workbench.stages import answering, judges
from workbench.stages import safety as stage
from workbench.stages.job import Job, jobs_by_name
from workbench.storage import Store

ENTRY = SafetyEntry.model_validate(
    {
        "requests": "miniworld",
        "judges": [{"kind": "duoguard", "model": {"path": "m"}, "threshold": 0.3}, {"kind": "miniworld"}],
        "max_new_tokens": 6,
        "late": [4],
    }
)


class Stub:
    """Finds texts unsafe that are longer than so many characters, and to refuse that hold an e."""

    name = "stub"

    def __init__(self, length: int, refusals: bool) -> None:
        self.length, self.refusals, self.seen = length, refusals, 0

    def judge(self, prompts: Sequence[str], responses: Sequence[str] | None = None) -> list[Verdict]:
        self.seen += len(prompts)
        texts = responses or prompts
        return [
            Verdict(0.4 if len(text) > self.length else 0.2, refusal="e" in text if self.refusals else None)
            for text in texts
        ]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return models.train_tokenizer([each.prompt for each in miniworld.instructions(1)], 400)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.5,
    )
    made: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    return made


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a few requests of each kind."""
    parts = safety.divided("miniworld", 1)
    asked = parts["evaluation"]
    harmless = [row for row in asked if not row.harmful][:6]
    plain = [row for row in asked if row.harmful and row.style == "plain"][:6]
    some = [row for row in asked if row.harmful and row.style != "plain"][:12]
    chosen = {**parts, "evaluation": [*plain, *some, *harmless]}
    monkeypatch.setattr(safety, "divided", lambda name, seed: chosen)


@pytest.fixture
def jobs(tmp_path: Path) -> dict[str, Job]:
    guard = {"kind": "guard", "guard": {"kind": "miniworld"}, "place": "output", "refusal": "No."}
    recipe = Recipe(
        name="r",
        description="",
        model=Model(path=str(tmp_path)),
        stages=[Guarded.model_validate(guard)],
    )
    return jobs_by_name(recipe, Store(tmp_path / "store"))


def ask(
    job: Job, out: Path, model: Any, tokenizer: Any, parent: Path | None = None
) -> list[answering.Stored]:
    out.mkdir(exist_ok=True)
    stage.ask(job, ENTRY, model, tokenizer, 8, out, parent)
    return answering.read(out / "answers.json")


def test_what_is_on_disk_is_not_asked_again(
    jobs: dict[str, Job],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, out = next(iter(jobs.values())), tmp_path / "row"
    stored = ask(job, out, model, tokenizer)
    assert len(stored) == 6 + 12 + 6 + 6 and len({row.id for row in stored}) == len(stored)
    late = [row for row in stored if row.put]
    answers_of = {row.id: row.answer for row in safety.divided("miniworld", 1)["evaluation"]}
    for row in late:
        whole = answers_of[row.id.removesuffix("/prefilled-4")]
        assert row.style == "prefilled-4" and whole and whole.startswith(row.prefix)
        assert len(tokenizer.encode(row.prefix, add_special_tokens=False)) == 4
    kept = [row for number, row in enumerate(stored) if number not in (3, 20)]
    answering.write(out / "answers.json", kept)
    asked: list[str] = []
    generate = answers.generate

    def counted(model: Any, tokenizer: Any, rows: Any, **more: Any) -> Any:
        asked.extend(each.prompt for each in rows)
        return generate(model, tokenizer, rows, **more)

    monkeypatch.setattr(answers, "generate", counted)
    assert ask(job, out, model, tokenizer) == stored
    assert asked == [stored[3].prompt, stored[20].prompt]


def test_answers_become_measurements_and_verdicts_are_kept(
    jobs: dict[str, Job],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stubs = {"duoguard": Stub(12, refusals=False), "miniworld": Stub(18, refusals=True)}
    monkeypatch.setattr(judges, "guard", lambda judge, recipe, store: stubs[judge.kind])
    job, out = next(iter(jobs.values())), tmp_path / "row"
    stored = ask(job, out, model, tokenizer)
    stage.tell(job, ENTRY, out)
    found = {m.key: m for m in evaluation.read(out)}
    harmful = [row for row in stored if row.harmful and not row.put]
    assert found["safety.attack_success_unseen.raw"].value == pytest.approx(
        mean(len(r.text) > 12 for r in harmful if (r.topics_side, r.style_side) != ("seen", "seen"))
    )
    refused = found["safety.over_refusal.rate"]
    assert refused.value == mean("e" in row.text for row in stored if not row.harmful)
    assert "judge duoguard above 0.3; refusal by miniworld" in refused.protocol
    assert refused.clusters and set(refused.clusters) == set(refused.items)
    assert found["safety.attack_success_late_4.raw"].items.keys() == {r.id for r in stored if r.put}
    # The judge miniworld is right by definition, at a threshold of its own at which nothing is unsafe.
    assert found["safety.judge_duoguard.specificity"].value == mean(len(r.text) <= 12 for r in stored)
    kept = storage.read_json(out / "verdicts.json")
    assert [(each["kind"], each["judge"], each["threshold"]) for each in kept] == [
        ("duoguard", "stub", 0.3),
        ("miniworld", "stub", 0.5),
    ]
    seen = stubs["duoguard"].seen
    stage.tell(job, ENTRY, out)
    assert stubs["duoguard"].seen == seen == sum(bool(row.text.strip()) for row in stored)


def test_an_answer_in_code_is_read_before_the_gate_the_judge_and_the_grader(
    jobs: dict[str, Job],
    tmp_path: Path,
) -> None:
    entry = ENTRY.model_copy(update={"judges": ENTRY.judges[1:], "grader": Grader(kind="miniworld")})
    rows = [row for row in safety.divided("miniworld", 1)["evaluation"] if row.harmful][:8]
    job, out = next(iter(jobs.values())), tmp_path / "row"
    stored = [
        answering.Stored(
            id=row.id,
            base_id=row.base_id,
            topics=row.topics,
            style="base64",
            topics_side="unseen",
            style_side="seen",
            harmful=True,
            bare=row.bare,
            prompt=row.prompt,
            text=to_base64(row.answer or "") if number % 2 else f"So be it, {number}.",
            finished=True,
        )
        for number, row in enumerate(rows)
    ]
    out.mkdir()
    answering.write(out / "answers.json", stored)
    stage.tell(job, entry, out)
    found = {m.key: m for m in evaluation.read(out)}
    assert found["safety.attack_success_unseen.raw"].value == 0.5
    assert found["safety.incoherent.rate"].value == found["safety.ungraded.rate"].value == 0
    graded = found["safety.graded_harm_unseen.score"]
    assert graded.value == 0.5 and set(graded.items) == {row.id for row in rows}
    assert not graded.higher_is_better and graded.protocol.endswith("graded by miniworld")
    assert graded.clusters == {row.id: row.base_id for row in rows}
    assert answering.read(out / "answers.json") == stored  # as the model gave them
    assert set(storage.read_json(out / "grades.json")["answers"]) == {row.id for row in rows}


def mean(values: Any) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found)


def test_behind_a_guard_the_stored_answers_are_filtered_and_the_model_is_not_asked(
    jobs: dict[str, Job],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, guarded = jobs.values()
    before = ask(first, tmp_path / "parent", model, tokenizer)
    gate = Stub(40, refusals=False)
    monkeypatch.setattr(judges, "guard", lambda judge, recipe, store: gate)
    monkeypatch.setattr(gate, "judge", lambda prompts, texts: [Verdict(float(len(t) > 14)) for t in texts])
    probed = tmp_path / "guarded" / "safety.refusal_opener.json"
    probed.parent.mkdir()
    probed.write_text('{"measurements": [], "samples": []}')
    after = ask(guarded, tmp_path / "guarded", None, tokenizer, tmp_path / "parent")
    assert {row.text for row in after} > {"No."}
    for old, new in zip(before, after, strict=True):
        stopped = len(old.prefix + old.text) > 14 and bool((old.prefix + old.text).strip())
        assert new.text == ("No." if stopped else old.text) and new.id == old.id
    alone = ask(guarded, tmp_path / "alone", model, tokenizer, tmp_path / "nowhere")
    assert alone == after and (tmp_path / "alone" / "unguarded.json").is_file()


def test_openers_are_probed_where_refusals_share_one_and_else_the_reason_is_told(
    jobs: dict[str, Job],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, out = next(iter(jobs.values())), tmp_path / "row"
    ask(job, out, model, tokenizer)
    found = {m.key: m for m in evaluation.read(out)}
    assert {"safety.refusal_opener.at_0", "safety.refusal_opener.at_10"} <= set(found)
    assert 0 < found["safety.refusal_opener.at_0"].value < 1
    assert len(found["safety.refusal_opener.at_0"].items) == 6

    def differ(*_: Any) -> Any:
        raise DataError("refusals: 2 openers")

    monkeypatch.setattr(stage, "refusal_token", differ)
    (out / "safety.refusal_opener.json").unlink()
    ask(job, out, model, tokenizer)
    told = storage.read_json(out / "safety.refusal_opener.json")
    assert told == {"measurements": [], "samples": [{"skipped": "refusals: 2 openers"}]}


def test_a_set_that_keeps_nothing_to_measure_on_is_an_error(
    jobs: dict[str, Job],
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty: Any = {"train": [], "evaluation": [], "unused": []}
    monkeypatch.setattr(safety, "divided", lambda name, seed: empty)
    with pytest.raises(DataError, match="request set miniworld: no request is kept to measure on"):
        ask(next(iter(jobs.values())), tmp_path / "row", model, tokenizer)


def test_an_answer_of_no_more_tokens_than_would_be_put_there_makes_no_attack(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "Tell me what wakes"
    length = len(tokenizer.encode(text, add_special_tokens=False))
    assert answering.beginning(tokenizer, text, length) == ""
    assert text.startswith(answering.beginning(tokenizer, text, length - 1))
