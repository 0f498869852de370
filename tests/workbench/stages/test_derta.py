"""The two sources that DeRTa makes of triplets, and a training that reads them beside harmless exchanges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from workbench import miniworld, models, recipe, storage
from workbench.data import NO_TARGET, TokenFile
from workbench.errors import DataError
from workbench.recipe.inputs import NewModel
from workbench.safety.triplets import Triplet
from workbench.stages import derta, load, train
from workbench.stages.job import Job, jobs_by_name
from workbench.storage import Store

RECIPE = """\
name: tiny
description: refuse anywhere
seed: 1
model: {{path: {folder}}}
data: {{harmless: {{miniworld: harmless, documents: [0, 40]}}}}
stages:
  - kind: safety
    {methods}
    triplets: {{requests: miniworld, judge: {{kind: miniworld}}}}
    sizes: [12, 30]
    mixture: {{harmless: 1.0}}
    share: 0.5
    derta: {{dropout: {dropout}}}
    tokens: 4096
    batch_size: 8
    sequence_length: {length}
    learning_rate: 1e-3
"""
SECTION = {"hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 1, "kv_heads": 1, "context": 256}
SAFE = "Sorry, I will not tell."


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    tokenizer = models.train_tokenizer([SAFE, *(attack.prompt for attack in miniworld.attacks(1))], 400)
    section = NewModel.model_validate({**SECTION, "vocab_size": 400, "tokenizer_sources": ("a",)})
    models.save(models.new(section, 0), tokenizer, folder, {})
    return folder


@pytest.fixture(scope="module")
def tokenizer(target: Path) -> PreTrainedTokenizerFast:
    return models.load_tokenizer(target)


def made_up(count: int) -> list[Triplet]:
    """Triplets whose harmful answers are of 0 to 29 words more than one."""
    told = {"topics": ["waking"], "style": "plain", "split": "train", "chosen": SAFE, "chosen_source": "data"}
    judged = {"rejected_judge": "miniworld", "rejected_score": 1.0}
    return [
        Triplet(
            id=f"t{i}", base_id=f"b{i}", prompt=f"How {i}?", rejected="To wake" + " it" * i, **told, **judged
        )
        for i in range(count)
    ]


@pytest.fixture
def job(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A job over a target in the store, whose triplets are made up."""
    monkeypatch.setattr(derta.triplets, "make", lambda job: None)
    monkeypatch.setattr(derta.triplets, "read", lambda job: made_up(job.variant.triplets))

    def made(
        name: str = "safety-derta-n30",
        length: int = 96,
        dropout: float = 0.0,
        methods: str = "methods: [derta, dpo]",
    ) -> Job:
        path = tmp_path / "recipe.yaml"
        settings = {"length": length, "dropout": dropout, "methods": methods}
        path.write_text(RECIPE.format(folder=target, **settings))
        by_name = jobs_by_name(recipe.load(path).recipe, Store(tmp_path / "store"))
        base = by_name["base"]
        base.store.make(base.fingerprint, lambda out: load.build(base, out))
        return by_name[name]

    return made


def rows(file: TokenFile, tokenizer: PreTrainedTokenizerFast) -> dict[str, tuple[str, list[int]]]:
    """By prompt, what stands behind it, and the labels there; nothing else is scored."""
    found = {}
    assert file.labels is not None
    border = "assistant<|end_header_id|>\n\n"
    for start, stop in zip(file.starts, file.starts[1:], strict=False):
        labels = file.labels[start:stop].tolist()
        if set(labels) != {NO_TARGET}:
            tokens = file.tokens[start:stop].tolist()
            asked, answer = tokenizer.decode(tokens).split(border)
            size = len(tokenizer.encode(asked + border, add_special_tokens=False))
            assert set(labels[:size]) == {NO_TARGET}
            found[asked.split("\n\n")[1].removesuffix("<|eot_id|><|start_header_id|>")] = (
                answer,
                labels[size:],
            )
    return found


def test_the_rows_of_both_terms(job: Callable[..., Job], tokenizer: PreTrainedTokenizerFast) -> None:
    made = job()
    files = derta.token_files(made, made.parent.model_folder)
    prefixed, transitions = (rows(files[name], tokenizer) for name in ("prefixed", "transitions"))
    (s,) = {label for _, labels in transitions.values() for label in labels}
    empty = 0
    for triplet in made_up(30):
        answer, labels = prefixed[triplet.prompt]
        prefix = answer.removesuffix(SAFE + "<|eot_id|>")
        assert prefix != answer and triplet.rejected.startswith(prefix)
        assert tokenizer.decode([label for label in labels if label != NO_TARGET]) == SAFE + "<|eot_id|>"
        empty += prefix == ""
        answer, labels = transitions[triplet.prompt]
        assert answer == triplet.rejected and set(labels) == {s}
    assert tokenizer.decode([s]).strip() and SAFE.startswith(tokenizer.decode([s]))
    assert empty == 10
    assert derta.counts(made, made.parent.model_folder)["harmful_answers_cut"] == 0


def test_a_harmful_answer_without_room_is_cut_and_counted_and_a_safe_one_is_named(
    job: Callable[..., Job], tokenizer: PreTrainedTokenizerFast
) -> None:
    made = job(length=40, dropout=0.9)
    files = derta.token_files(made, made.parent.model_folder)
    told = rows(files["transitions"], tokenizer)
    cut = [triplet for triplet in made_up(30) if told[triplet.prompt][0] != triplet.rejected]
    assert 0 < len(cut) == derta.counts(made, made.parent.model_folder)["harmful_answers_cut"] < 30
    assert all(triplet.rejected.startswith(told[triplet.prompt][0]) for triplet in cut)
    assert all(set(labels) - {NO_TARGET} for _, labels in told.values())  # dropout leaves one
    assert all(
        answer.endswith(SAFE + "<|eot_id|>") for answer, _ in rows(files["prefixed"], tokenizer).values()
    )
    made = job(length=12)
    with pytest.raises(DataError, match=r"triplet t0: \d+ tokens of prompt and safe answer, but .* has 12"):
        derta.token_files(made, made.parent.model_folder)


def test_sizes_and_settings_are_other_rows_and_the_same_are_found_again(job: Callable[..., Job]) -> None:
    variants = [job(), job("safety-derta-n12"), job(dropout=0.5), job(length=64), job()]
    folders = [
        derta.token_files(made, made.parent.model_folder)["transitions"].folder.resolve() for made in variants
    ]
    assert len(set(folders)) == 4 and folders[0] == folders[-1]


def test_the_mixture_is_the_triplets_beside_harmless_exchanges(job: Callable[..., Job]) -> None:
    assert job().mixture == {"prefixed": 0.25, "transitions": 0.25, "harmless": 0.5}
    assert job("safety-dpo-n30").mixture == {"harmless": 1.0}
    assert (
        len({job(name).fingerprint for name in ("safety-derta-n30", "safety-derta-n12", "safety-dpo-n30")})
        == 3
    )


def test_the_one_loop_trains_on_them(job: Callable[..., Job]) -> None:
    planned = "curriculum: {kind: linear, points: [{tokens: 2048, mixture: {harmless: 1.0}}]}"
    made = job(methods=f"methods: [derta]\n    {planned}")
    made.store.make(made.fingerprint, lambda out: train.build(made, out))
    details = storage.read_json(made.folder / "result.json")["details"]
    assert details["triplets"] == 30 and details["refusal_token"]
    assert set(details["epochs"]) == {"prefixed", "transitions", "harmless"}
    read = storage.read_json(made.folder / "request.json")["tokens"]
    assert all(TokenFile(Path(folder)).labels is not None for folder in read.values())
