"""Everything critical is LoRA trained by DPO, nothing critical moves nothing; masks hold what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import logsigmoid
from transformers import LlamaForCausalLM

from workbench.quantization import tuning
from workbench.quantization.huggingface import quantized_linears
from workbench.recipe.quantization import Qlora
from workbench.recipe.safety import Dpo, QResafe
from workbench.recipe.schema import Engine
from workbench.safety import dpo, q_resafe
from workbench.safety.patched import PatchedLinear, begin, patched
from workbench.safety.q_resafe import critical, patch, snip
from workbench.training.log import MetricsLog

STEPS, RANK, ALPHA, BETA = 5, 3, 6.0, 1.0


def settings(**changed: Any) -> QResafe:
    return QResafe(rank=RANK, alpha=ALPHA, beta=BETA, **changed)


def weights(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {name: layer.dequantize() for name, layer in quantized_linears(model).items()}


def test_with_all_weights_critical_it_is_lora_trained_by_dpo(
    rounded: Callable[..., LlamaForCausalLM], course: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model, other = rounded(), rounded()
    patch(model, tokenizer, course(tmp_path / "patch", STEPS), settings(tau=1.0, every=2))
    generator = torch.Generator().manual_seed(1)
    other.requires_grad_(False)
    for name, layer in quantized_linears(other).items():
        plain = tuning.AdaptedLinear(layer, Qlora(rank=RANK, alpha=ALPHA), generator)
        other.set_submodule(name, plain)
    other.is_quantized = False  # type: ignore[assignment]
    dpo.prefer(other, tokenizer, course(tmp_path / "plain", STEPS), Dpo(beta=BETA))
    tuning.finish(other, "qlora", 3)
    start, found, expected = weights(rounded()), weights(model), weights(other)
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
        assert (weight - start[name]).abs().max() > 1e-3


def test_with_no_weight_critical_nothing_moves(
    rounded: Callable[..., LlamaForCausalLM], course: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model, start = rounded(), quantized_linears(rounded())
    patch(model, tokenizer, course(tmp_path, 2, weight_decay=0.1), settings(tau=0.0, every=1))
    for name, layer in quantized_linears(model).items():
        assert layer.dequantize().equal(start[name].dequantize())
        assert all(layer.tensors[f"base_{part}"].equal(each) for part, each in start[name].tensors.items())


def test_between_two_masks_only_their_rows_and_columns_move(
    rounded: Callable[..., LlamaForCausalLM],
    course: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, seen = rounded(), []
    keep = PatchedLinear.keep

    def watched(layer: PatchedLinear, chosen: Tensor) -> None:
        before = layer.factors
        keep(layer, chosen)
        for one, other in zip(before, layer.factors, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)  # nothing jumps
        seen.append((layer, chosen, [each.detach().clone() for each in layer.factors]))

    monkeypatch.setattr(PatchedLinear, "keep", watched)
    monkeypatch.setattr(q_resafe, "finish", lambda _: None)
    kept = patch(model, tokenizer, course(tmp_path, 4, weight_decay=0.1), settings(tau=0.01, every=2))[1]
    layers = len(patched(model))
    assert len(seen) == 2 * layers and 0 < kept["rows_trained"] < 1 > kept["columns_trained"] > 0
    for number, (layer, chosen, before) in enumerate(seen):
        assert int(chosen.sum()) == round(0.01 * chosen.numel())
        after = seen[number + layers][2] if number < layers else layer.factors
        assert (after[0] != before[0]).any(1).equal(chosen.any(1))
        if number >= layers:  # in the first step A is zero, and so is the gradient of B
            assert (after[1] != before[1]).any(0).equal(chosen.any(0))
    assert any(not seen[i][1].equal(seen[i + layers][1]) for i in range(layers))  # the second are others


def test_the_score_is_that_of_a_dense_model(
    rounded: Callable[..., LlamaForCausalLM], course: Callable[..., Any], tmp_path: Path
) -> None:
    model, rows = rounded(), list(course(tmp_path, 1).rows)[:3]
    start = weights(model)
    begin(model, settings(), 1)
    torch.manual_seed(0)
    for layer in patched(model).values():
        layer.A.data.normal_(std=0.3)
    scores = snip(model, rows, BETA)
    assert all(parameter.grad is None for parameter in model.parameters())
    dense = {name: layer.weight().requires_grad_() for name, layer in patched(model).items()}
    expected = {name: torch.zeros_like(weight) for name, weight in dense.items()}

    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict(), strict=False)

    def log_p(linears: dict[str, Tensor], row: dict[str, Any], answer: str) -> Tensor:
        ids = torch.tensor([row["prompt_ids"] + row[answer]])
        named = {f"{name}.weight": weight for name, weight in linears.items()}
        logits = functional_call(plain, named, kwargs={"input_ids": ids}).logits[0, :-1]
        told: Tensor = logits.log_softmax(-1).gather(1, ids[0, 1:, None])
        return told[len(row["prompt_ids"]) - 1 :].sum()

    for row in rows:
        one, zero = (log_p(of, row, "chosen_ids") - log_p(of, row, "rejected_ids") for of in (dense, start))
        slopes = torch.autograd.grad(-logsigmoid(BETA * (one - zero.detach())), list(dense.values()))
        for (name, weight), slope in zip(dense.items(), slopes, strict=True):
            expected[name] += (weight * slope).abs().detach() / len(rows)
    for name, score in scores.items():
        torch.testing.assert_close(score, expected[name], rtol=1e-3, atol=1e-7)


def test_the_critical_are_those_of_greatest_score() -> None:
    scores = torch.tensor([[5.0, 1.0, 0.0], [2.0, 4.0, 3.0]])
    assert critical(scores, 0.5).tolist() == [[True, False, False], [False, True, True]]
    assert critical(scores, 1.0).all() and not critical(scores, 0.0).any()


@pytest.mark.parametrize("engine", [Engine(), Engine(zero_stage=3), Engine(activation_checkpointing=True)])
def test_a_training_that_was_stopped_ends_the_same(
    rounded: Callable[..., LlamaForCausalLM],
    course: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
) -> None:
    def taught(out: Path, engine: Engine = engine) -> list[Tensor]:
        model = rounded()
        patch(model, tokenizer, course(out, STEPS, engine=engine), settings(tau=0.01, every=3))
        return list(weights(model).values())

    class StoppedError(Exception):
        pass

    def stop(self: Any, **row: Any) -> None:
        if row["step"] == 5:
            raise StoppedError
        plain(self, **row)

    whole, plain = taught(tmp_path / "whole", Engine()), MetricsLog.write
    with monkeypatch.context() as cut:
        cut.setattr(MetricsLog, "write", stop)
        with pytest.raises(StoppedError):
            taught(tmp_path / "stopped")
    for one, other in zip(taught(tmp_path / "stopped"), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
