from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.data import TokenFile
from workbench.evaluation import Battery, Probe
from workbench.evaluation.harness import Harness, LoadedModel, evaluate
from workbench.evaluation.probe import encode_pair

MakeBattery = Callable[..., Battery]

TASKS = (
    {"task": "animals", "aspect": "retained", "name": "animals", "shots": 1},
    {"task": "whole", "aspect": "new", "name": "whole", "metric": "acc_norm"},
)
TEXT = {"name": "text", "text": {"path": "unused"}, "sequence_length": 16}


@pytest.fixture
def small(battery: MakeBattery) -> Battery:
    return battery(*TASKS, language=[TEXT])


def test_without_a_limit_that_binds_it_equals_the_harness(
    small: Battery,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: TokenFile,
    tmp_path: Path,
) -> None:
    measured = evaluate(
        model, tokenizer, Harness(small, {"seed": 1}), {"text": text}, tmp_path / "row", title="t"
    )
    probed = Probe(small, tokenizer, {"text": text}, {"seed": 1}, limit=10_000)(model)
    assert probed == {m.key: pytest.approx(m.value, rel=1e-5) for m in measured}


def test_it_looks_at_the_first_questions_only(
    small: Battery,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: TokenFile,
    battery: MakeBattery,
) -> None:
    limited = battery(*({**task, "limit": 6} for task in TASKS), language=[{**TEXT, "windows": 6}])
    probed = Probe(small, tokenizer, {"text": text}, {"seed": 1}, limit=6)(model)
    assert probed == pytest.approx(Probe(limited, tokenizer, {"text": text}, {"seed": 1}, limit=50)(model))


def test_it_leaves_the_mode_the_gradients_and_the_generators_as_they_were(
    small: Battery, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: TokenFile
) -> None:
    model.train()
    random.seed(3)
    torch.manual_seed(3)
    states = random.getstate(), torch.get_rng_state()
    probe = Probe(small, tokenizer, {"text": text}, {"seed": 1}, limit=4)
    assert probe(model) == probe(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    model.eval()


def test_a_compiled_model_is_not_compiled_again(
    small: Battery, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: TokenFile
) -> None:
    compiled: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    wrapped = torch.compile(model, backend=backend)
    probe = Probe(small, tokenizer, {"text": text}, {"seed": 1}, limit=4)
    assert probe(wrapped) == probe(model)
    assert not compiled


@pytest.mark.parametrize(
    "pair", [("The cat eats", " figs"), ("The cat eats ", "figs"), ("", "figs"), ("", " figs.")]
)
def test_pairs_are_parted_as_lm_eval_does_it(
    pair: tuple[str, str], model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    seen: list[tuple[list[int], list[int]]] = []

    class Seeing(LoadedModel):
        def _loglikelihood_tokens(self, requests, *args, **kwargs):  # type: ignore[no-untyped-def]
            seen.extend((context, continuation) for _, context, continuation in requests)
            return [(0.0, False)] * len(requests)

    Seeing(model, tokenizer, 1, "t").loglikelihood([Instance("loglikelihood", {}, pair, 0, ("t", 0, 1))])
    assert seen == [encode_pair(tokenizer, *pair)]
