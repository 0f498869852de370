from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.data import TokenFile
from workbench.errors import NumericsError, RecipeError
from workbench.evaluation import Battery
from workbench.evaluation.harness import Harness, LoadedModel, evaluate
from workbench.storage import read_json

MakeBattery = Callable[..., Battery]

ANIMALS = {"task": "animals", "aspect": "retained", "name": "animals"}
WHOLE = {"task": "whole", "aspect": "new", "name": "whole", "metric": "acc_norm"}
TEXT = {"name": "text", "text": {"path": "unused"}, "sequence_length": 16}


class Oracle(LM):
    """Knows the answers, and gives them the likelihood `gold`; all others 0."""

    def __init__(self, gold: float) -> None:
        super().__init__()
        self.gold = gold
        self.prompts: list[str] = []

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        self.prompts += [request.args[0] for request in requests]
        return [(self.gold if r.idx == r.doc["gold"] else 0.0, False) for r in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError


@pytest.mark.parametrize(("gold", "accuracy"), [(1.0, 1.0), (-1.0, 0.0)])
def test_who_prefers_the_gold_is_always_right_and_who_avoids_it_never(
    battery: MakeBattery, gold: float, accuracy: float
) -> None:
    harness = Harness(battery(ANIMALS), {"seed": 1})
    measurement, records = harness.ask(harness.battery.tasks[0], Oracle(gold))
    assert measurement.value == accuracy
    assert measurement.chance == 0.25
    assert measurement.higher_is_better
    assert len(measurement.items) == len(records) == 23
    assert all(record["prompt_hash"] and record["doc_hash"] for record in records)


@pytest.mark.parametrize("entry", [ANIMALS, WHOLE, ANIMALS | {"shots": 2, "limit": 11}])
def test_agrees_with_lm_eval_on_its_own(
    task_folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    entry: dict[str, Any],
    battery: MakeBattery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Seconds of questions about the machine, for a report that is not looked at.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    monkeypatch.setattr("lm_eval.evaluator.get_git_commit_hash", lambda: None)
    harness = Harness(battery(entry), {"seed": 1})
    asked = harness.battery.tasks[0]
    ours, records = harness.ask(asked, LoadedModel(model, tokenizer, 5, "t"))
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1),
        tasks=[asked.task],
        num_fewshot=asked.shots,
        limit=asked.limit,
        bootstrap_iters=0,
        task_manager=TaskManager(
            include_path=[str(task_folder)], include_defaults=False, metadata={"seed": 1}
        ),
    )
    assert ours.value == theirs["results"][asked.task][f"{asked.metric},none"]
    for record, sample in zip(records, theirs["samples"][asked.task], strict=True):
        assert record["prompt_hash"] == sample["prompt_hash"]
        expected = [answer[0][0] for answer in sample["resps"]]
        assert [answer[0][0] for answer in record["resps"]] == pytest.approx(expected, abs=1e-4)


def test_every_row_is_asked_with_the_same_examples(battery: MakeBattery) -> None:
    harness = Harness(battery(ANIMALS | {"shots": 3}), {"seed": 1})
    first, second = Oracle(1.0), Oracle(-1.0)
    protocols = {harness.ask(harness.battery.tasks[0], lm)[0].protocol for lm in (first, second)}
    assert first.prompts == second.prompts
    assert first.prompts[0].count("eats") == 4
    assert len(protocols) == 1


def test_other_questions_are_another_protocol(battery: MakeBattery) -> None:
    protocols = set()
    for seed, more in ((1, {}), (2, {}), (1, {"limit": 9}), (1, {"shots": 1})):
        harness = Harness(battery(ANIMALS | more), {"seed": seed})
        protocols.add(harness.ask(harness.battery.tasks[0], Oracle(1.0))[0].protocol)
    assert len(protocols) == 4


def test_a_chat_battery_or_task_asks_through_the_template_and_says_so(
    battery: MakeBattery, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    asked: dict[tuple[bool, bool], list[str]] = {}
    protocols = {}
    for whole, task in ((False, False), (True, False), (False, True)):
        harness = Harness(battery(tasks=[ANIMALS | {"chat": task}], chat=whole), {"seed": 1})
        loaded = LoadedModel(model, tokenizer, 8, "m")
        found, records = harness.ask(harness.battery.tasks[0], loaded)
        asked[whole, task] = [str(record["prompt_hash"]) for record in records]
        protocols[whole, task] = found.protocol
    assert asked[True, False] == asked[False, True] != asked[False, False]
    assert protocols[True, False] == protocols[False, True]
    assert "chat template" in protocols[True, False] and "chat template" not in protocols[False, False]


def test_a_finished_task_is_not_asked_again(
    battery: MakeBattery,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: TokenFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness(battery(ANIMALS, WHOLE, language=[TEXT]), {"seed": 1})
    asked: list[str] = []
    ask = Harness.ask
    monkeypatch.setattr(
        Harness, "ask", lambda self, entry, lm: asked.append(entry.name) or ask(self, entry, lm)
    )
    out = tmp_path / "row"
    first = evaluate(model, tokenizer, harness, {"text": text}, out, title="t")
    (out / "new.whole.json").unlink()
    again = evaluate(model, tokenizer, harness, {"text": text}, out, title="t")
    assert asked == ["animals", "whole", "whole"]
    assert first == again
    keys = {
        "retained.animals.acc",
        "new.whole.acc_norm",
        "language.text.perplexity",
        "language.text.bits_per_byte",
    }
    assert {measurement.key for measurement in first} == keys
    assert len(read_json(out / "new.whole.json")["samples"]) == 23


def test_nothing_of_the_caller_is_changed(
    battery: MakeBattery, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    random.seed(5)
    torch.manual_seed(5)
    expected = random.Random(5).random(), torch.rand(1, generator=torch.Generator().manual_seed(5))
    evaluate(model, bare, Harness(battery(ANIMALS), {"seed": 1}), {}, tmp_path / "row", title="t")
    assert bare.pad_token is None
    assert (random.random(), torch.rand(1)) == expected


def test_a_model_that_gives_no_numbers_is_refused(
    battery: MakeBattery, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    broken = copy.deepcopy(model)
    broken.lm_head.weight.data[3] = math.nan
    harness = Harness(battery(ANIMALS), {"seed": 1})
    with pytest.raises(NumericsError, match="animals, question 0"):
        harness.ask(harness.battery.tasks[0], LoadedModel(broken, tokenizer, 5, "t"))


def test_a_prompt_beyond_the_context_is_refused(
    battery: MakeBattery, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    harness = Harness(battery(ANIMALS | {"shots": 8}), {"seed": 1})
    with pytest.raises(RecipeError, match=r"context is 96; ask for fewer shots"):
        harness.ask(harness.battery.tasks[0], LoadedModel(model, tokenizer, 5, "t"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"metric": "accuracy"}, "no metric 'accuracy'; it has: acc, acc_norm, brier_score"),
        ({"metric": "brier_score"}, "not one number a question"),
        ({"filter": "strict"}, "no filter 'strict'; it has: none"),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_refused(
    battery: MakeBattery, entry: dict[str, str], message: str
) -> None:
    harness = Harness(battery(ANIMALS | entry), {"seed": 1})
    with pytest.raises(RecipeError, match=message):
        harness.ask(harness.battery.tasks[0], Oracle(1.0))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("odd.yaml", "include: _base.yaml\ntask: odd\ndoc_to_txt: x\n", "doc_to_txt.*doc_to_text"),
        ("lost.yaml", "include: _absent.yaml\ntask: lost\n", r"lost\.yaml: lm-eval cannot read it"),
    ],
)
def test_a_task_file_that_lm_eval_would_skip_or_choke_on_is_refused(
    battery: MakeBattery, task_folder: Path, file: str, content: str, message: str
) -> None:
    (task_folder / file).write_text(content)
    with pytest.raises(RecipeError, match=message):
        Harness(battery(ANIMALS), {"seed": 1})
